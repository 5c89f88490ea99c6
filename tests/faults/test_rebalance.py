"""Routers that join, leave, die, freeze or share a name: one writer a partition, nothing lost or counted twice."""

import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from e2e.any_client import AnyClient
from e2e.programs import Program, until
from e2e.traffic import Traffic
from faults.deployment import APPLICATIONS, OwnDeployment
from faults.report import FaultReport
from faults.restored import judge_restored
from faults.standing import SOME
from faults.verdict import STOPS_WITHIN_MS, Span, Verdict, judge
from faults.watching import Watch
from plain_msgpack import unpack

from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

PARTITIONS = 4


@dataclass
class Routers:
    """Routers by instance, a host and traffic.

    Attributes:
        faults_s: When the group was disturbed, by `time.monotonic`.
        late_rows: Positions in the changelog that are not above the one before in their partition, once judged.
        stalls_s: The longest time without an answer in some partition, after each fault, seconds, once judged.
    """

    deployment: OwnDeployment
    traffic: Traffic
    watch: Watch
    stack: ExitStack
    running: dict[str, Program] = field(default_factory=dict)
    faults_s: list[float] = field(default_factory=list)
    late_rows: int = 0
    stalls_s: list[float] = field(default_factory=list)

    @property
    def client(self) -> AnyClient:
        """Reads and writes."""
        return self.deployment.client

    @property
    def catalogue(self) -> Catalogue:
        """Its topics."""
        return self.deployment.catalogue

    def start(self, instance: str, place: str | None = None) -> Program:
        """A router, on a machine of its own when a place is given; it serves when this returns."""
        self.fault()
        machine = self.deployment._replace(data=self.deployment.folder / (place or "data"))
        program = self.stack.enter_context(machine.start("worker", "router", "--instance", instance))
        self.running[place or instance] = program
        program.ready()
        return program

    def leave(self, instance: str) -> None:
        """End a router in order."""
        self.fault()
        program = self.running.pop(instance)
        program.signal(signal.SIGTERM)
        assert program.ended() == 0, program.log[-4000:]

    def fault(self) -> None:
        """The group is disturbed now."""
        self.faults_s.append(time.monotonic())

    def flows(self) -> None:
        """Wait until every partition gives answers to queries that were asked after this call."""
        asked = self.traffic.asked
        until("more queries", lambda: self.traffic.asked > asked + SOME)
        seen = {number: len(self.watch.arrivals_of_s.get(number, ())) for number in range(PARTITIONS)}
        until(
            "answers in every partition",
            lambda: all(len(self.watch.arrivals_of_s.get(number, ())) > seen[number] for number in seen),
        )

    def owned(self) -> dict[str, set[int]]:
        """Partitions of the queries by instance, as the group's coordinator says."""
        admin = AdminClient({"bootstrap.servers": self.client.bootstrap})
        group = self.catalogue.router_group
        members = admin.describe_consumer_groups([group])[group].result(30).members  # type: ignore[attr-defined]
        return {
            str(member.group_instance_id): {
                tp.partition for tp in member.assignment.topic_partitions if tp.topic == self.catalogue.queries
            }
            for member in members
        }

    def settled(self, *instances: str) -> dict[str, set[int]]:
        """What each owns, once these and no others own all partitions."""

        def complete() -> dict[str, set[int]] | None:
            owned = self.owned()
            wanted = set(instances)
            all_there = owned.keys() == wanted and set().union(*owned.values()) == set(range(PARTITIONS))
            return owned if all_there and all(owned.values()) else None

        return until(f"{instances} share all partitions", complete)

    def verdict(self) -> Verdict:
        """Ask no more, end the routers, and look what the logs say."""
        self.stalls_s = self.watch.stalls_of_partitions_s(self.faults_s)
        self.traffic.finish()
        before = judge(self.client, self.catalogue.prefix, APPLICATIONS)
        self.late_rows = self._rows_out_of_order()
        return judge_restored(self.deployment, before, *self.running.values())

    def _rows_out_of_order(self) -> int:
        highest: dict[int, int] = {}
        late = 0
        for record in self.client.read(self.catalogue.selection_changelog):
            application, context, partition = unpack(record.key or b"")
            assert partition == record.partition
            if not application and context is None:
                offset = unpack(record.value or b"")[1]
                late += offset <= highest.get(partition, -2)  # -1: before the first feedback
                highest[partition] = max(offset, highest.get(partition, -1))
        return late


@pytest.fixture
def routers(kafka: KafkaConnection, tmp_path: Path) -> Iterator[Routers]:
    """One router that serves, a host, and traffic on four partitions."""
    catalogue = Catalogue(prefix=f"t{uuid.uuid4().hex[:6]}", partitions=PARTITIONS)
    deployment = OwnDeployment.on(kafka, catalogue, tmp_path)
    client = deployment.client
    with (
        ExitStack() as stack,
        deployment.worker("host", "slow-sum:1") as model,
        Watch(client, catalogue.predictions) as watch,
        Traffic(client, catalogue.prefix, PARTITIONS) as traffic,
    ):
        model.ready()
        group = Routers(deployment, traffic, watch, stack)
        group.start("router-0")
        group.flows()
        group.faults_s.clear()
        yield group


def one_writer_a_partition(verdict: Verdict, group: Routers) -> None:
    """Nothing was said twice, and the rows of a partition grow: nobody wrote beside its owner."""
    verdict.check()
    assert group.late_rows == 0


@pytest.mark.short
def test_routers_that_join_and_leave(routers: Routers, short: bool, fault_report: FaultReport):
    """In order: each partition moves once at most, and stays where it can."""
    rounds = 1 if short else 5
    for _ in range(rounds):
        before = routers.settled("router-0")
        routers.start("router-1")
        two = routers.settled("router-0", "router-1")
        assert two["router-0"] < before["router-0"]
        routers.flows()
        if not short:
            routers.start("router-2")
            three = routers.settled("router-0", "router-1", "router-2")
            assert all(three[name] <= two[name] for name in two), (two, three)
            routers.flows()
            routers.leave("router-2")
            left = routers.settled("router-0", "router-1")
            assert all(left[name] >= three[name] for name in left), (three, left)
            routers.flows()
        routers.leave("router-1")
        routers.settled("router-0")
        routers.flows()
    verdict = routers.verdict()
    moves = len(routers.faults_s)
    fault_report.add("routers join and leave", verdict, kills=moves, stalls_s=routers.stalls_s)
    one_writer_a_partition(verdict, routers)


def test_a_router_that_is_killed_and_does_not_come_back(routers: Routers, short: bool, fault_report: FaultReport):
    """Its partitions go to the others when its session has ended."""
    for number in range(1, 2 if short else 11):
        name = f"router-{number}"
        program = routers.start(name)
        routers.settled("router-0", name)
        routers.flows()
        routers.fault()
        program.signal(signal.SIGKILL)
        routers.settled("router-0")
        routers.flows()
    verdict = routers.verdict()
    stalls_s = routers.stalls_s[1::2]  # after each kill, and not after the start before it
    fault_report.add("a router killed for good", verdict, kills=len(stalls_s), stalls_s=stalls_s)
    one_writer_a_partition(verdict, routers)


def test_a_router_that_is_frozen_beyond_its_session(routers: Routers, short: bool, fault_report: FaultReport):
    """A zombie: it wakes up after its partitions have moved, and whatever it then writes counts for nobody."""
    zombie = routers.start("router-1")
    routers.settled("router-0", "router-1")
    routers.flows()
    routers.faults_s.clear()
    restarts, stood_still = 0, list[Span]()
    for _ in range(1 if short else 3):
        routers.fault()
        since_ms = 1e3 * time.time()
        zombie.signal(signal.SIGSTOP)
        stood_still.append((since_ms, 1e3 * time.time() + STOPS_WITHIN_MS))
        routers.settled("router-0")
        routers.flows()
        routers.fault()
        zombie.signal(signal.SIGCONT)
        until("it is back, or has ended", lambda z=zombie: "router-1" in routers.owned() or z.code is not None)
        if zombie.code is not None:  # as its supervisor would
            restarts += 1
            zombie = routers.start("router-1")
        routers.settled("router-0", "router-1")
        routers.flows()
    verdict = routers.verdict()
    note = f"{restarts} restarts, {verdict.repeated} repeated, {routers.late_rows} rows of the zombie"
    fault_report.add(
        "a router frozen beyond its session", verdict, kills=len(routers.faults_s), stalls_s=routers.stalls_s, note=note
    )
    verdict.check(stood_still=stood_still)


def test_two_routers_with_one_instance_name(routers: Routers, fault_report: FaultReport):
    """By mistake, on two machines: the newer one serves, the other says so and waits until that one is gone."""
    first = routers.running["router-0"]
    since_ms = 1e3 * time.time()
    second = routers.start("router-0", place="elsewhere")
    taken_over = since_ms, 1e3 * time.time()
    said = "another process runs as instance=router-0"
    until("the first says what is wrong", lambda: said in first.log)
    routers.flows()
    routers.fault()
    second.signal(signal.SIGKILL)
    routers.flows()
    verdict = routers.verdict()
    assert (first.log.count(said), second.log.count(said)) == (1, 0)
    fault_report.add("two routers with one name", verdict, kills=1, stalls_s=routers.stalls_s)
    verdict.check(stood_still=[taken_over])
