"""Routers that join, leave, die, freeze or share a name: one writer a partition, nothing lost or counted twice."""

import signal
import time

import pytest
from e2e.programs import until
from faults.deployment import Deployment
from faults.routers import PARTITIONS, Routers
from kafka_fixture import temporary_topics

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.fixture
def routers(kafka, tmp_path, fault_report):
    """A host, and traffic on four partitions that one router answers."""
    with temporary_topics(kafka, PARTITIONS) as catalogue:
        deployment = Deployment.on(kafka, catalogue, tmp_path)
        with deployment.worker("host", "slow-sum:1") as host, Routers(deployment, fault_report) as group:
            host.ready()
            yield group


@pytest.fixture
def first(routers):
    program = routers.join("router-0")
    routers.settled("router-0")
    routers.faults_s.clear()
    return program


@pytest.mark.short
def test_routers_that_join_and_leave(routers, first, short):
    """In order: each partition moves once at most, and stays where it can."""
    for _ in range(1 if short else 5):
        before = routers.settled("router-0")
        second = routers.join("router-1")
        two = routers.settled("router-0", "router-1")
        assert two["router-0"] < before["router-0"]
        if not short:
            third = routers.join("router-2")
            three = routers.settled("router-0", "router-1", "router-2")
            assert all(three[name] <= two[name] for name in two), (two, three)
            routers.leave(third)
            left = routers.settled("router-0", "router-1")
            assert all(left[name] >= three[name] for name in left), (three, left)
        routers.leave(second)
    routers.settled("router-0")
    verdict = routers.judged(first)
    routers.conclude("routers join and leave", verdict)
    assert verdict.late_rows == 0


def test_a_router_that_is_killed_and_does_not_come_back(routers, first, short):
    """Its partitions go to the others when its session has ended."""
    for number in range(1, 2 if short else 11):
        program = routers.join(name := f"router-{number}")
        routers.settled("router-0", name)
        routers.fault()
        program.signal(signal.SIGKILL)
        routers.settled("router-0")
    verdict = routers.judged(first)
    stalls_s = routers.stalls_s[1::2]  # after each kill, and not after the start before it
    routers.conclude("a router killed for good", verdict, kills=len(stalls_s), stalls_s=stalls_s)
    assert verdict.late_rows == 0


def test_a_router_that_is_frozen_beyond_its_session(routers, first, short):
    """A zombie: it wakes up after its partitions have moved, and whatever it then writes counts for nobody."""
    zombies = [routers.join("router-1")]
    routers.settled("router-0", "router-1")
    routers.faults_s.clear()
    for _ in range(1 if short else 3):
        zombie = zombies[-1]
        routers.fault()
        routers.freeze_router(zombie)
        routers.settled("router-0")
        routers.fault()
        zombie.signal(signal.SIGCONT)
        until("it is back, or has ended", lambda z=zombie: "router-1" in routers.owned() or z.code is not None)
        if zombie.code is not None:  # as its supervisor would
            zombies.append(routers.join("router-1"))
        routers.settled("router-0", "router-1")
    verdict = routers.judged(first, zombies[-1])
    note = f"{len(zombies) - 1} restarts, {verdict.repeated} repeated, {verdict.late_rows} rows of the zombie"
    routers.conclude("a router frozen beyond its session", verdict, note=note)


def test_two_routers_with_one_instance_name(routers, first):
    """By mistake, on two machines: the newer one serves, the other says so and waits until that one is gone."""
    since_ms = 1e3 * time.time()
    second = routers.join("router-0", place="elsewhere")
    routers.stood_still.append((since_ms, 1e3 * time.time()))
    said = "another process runs as instance=router-0"
    until("the first says what is wrong", lambda: said in first.log)
    routers.flows()
    routers.fault()
    second.signal(signal.SIGKILL)
    routers.flows()
    verdict = routers.judged(first)
    assert (first.log.count(said), second.log.count(said)) == (1, 0)
    routers.conclude("two routers with one name", verdict, kills=1)
