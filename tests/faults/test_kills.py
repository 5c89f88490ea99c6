"""Whatever is killed, at whatever moment: every query is answered, and every feedback counts exactly once."""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from e2e.any_client import AnyClient, Record
from e2e.programs import Program, RunningProcess, until
from e2e.traffic import Traffic
from faults.deployment import APPLICATIONS, CONFIGURATION, OwnDeployment
from faults.report import FaultReport
from faults.standing import SOME
from faults.verdict import judge
from faults.watching import Watch

from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.faults, pytest.mark.short, pytest.mark.timeout(900)]

REASONS = {"late", "arrived_late", "errors", "no_models"}
"""Why an answer may be a default while processes are killed; without a model while colocated ones are made again."""


@pytest.fixture
def deployment(kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path) -> OwnDeployment:
    return OwnDeployment.on(kafka, catalogue, tmp_path)


def committed(client: AnyClient, group: str, topic: str, partitions: int) -> dict[int, int]:
    """Where the group goes on reading, by partition."""
    consumer = Consumer({"bootstrap.servers": client.bootstrap, "group.id": group})
    found = consumer.committed([TopicPartition(topic, number) for number in range(partitions)], timeout=60)
    consumer.close()
    return {one.partition: one.offset for one in found}


def killed(program: Program, traffic: Traffic, rng: random.Random) -> float:
    """Kill it after some queries; when that was."""
    goal = traffic.asked + rng.randrange(20, 200)
    until("the moment to kill", lambda: traffic.asked >= goal)
    at_s = time.monotonic()
    program.signal(signal.SIGKILL)
    assert program.ended() == -signal.SIGKILL
    return at_s


def moments(kills: int, rng: random.Random) -> Iterator[tuple[bool, bool]]:
    """For each kill: whether the data is wiped behind it, and whether it comes before the process serves."""
    wiped = [number % 2 == 0 for number in range(kills)]
    rng.shuffle(wiped)
    return zip(wiped, (rng.random() < 0.25 for _ in range(kills)), strict=False)


def test_routers(deployment: OwnDeployment, short: bool, fault_report: FaultReport):
    """kill -9 of the router: while it starts, recovers, decides and learns."""
    client, catalogue, rng = deployment.client, deployment.catalogue, random.Random(20171)
    kills_s: list[float] = []
    kills = 5 if short else 40
    with (
        deployment.worker("host", "slow-sum:1") as host,
        Watch(client, catalogue.predictions) as watch,
        Traffic(client, catalogue.prefix, catalogue.partitions) as traffic,
    ):
        host.ready()
        for wipe, early in moments(kills, rng):
            with deployment.worker("router") as router:
                if not early:
                    router.ready()
                kills_s.append(killed(router, traffic, rng))
            if wipe:
                shutil.rmtree(deployment.data, ignore_errors=True)
        with deployment.worker("router") as router:
            router.ready()
            traffic.finish()
            verdict = judge(client, catalogue.prefix, APPLICATIONS)
            stalls_s = watch.stalls_s(kills_s)
            fault_report.add("kill -9 of the router", verdict, kills=kills, stalls_s=stalls_s)
            verdict.check()
            router.signal(signal.SIGTERM)
            assert router.ended() == 0, router.log[-4000:]
        host.signal(signal.SIGTERM)
        assert host.ended() == 0, host.log[-4000:]
    assert verdict.defaults.keys() <= REASONS
    besides = {one["model"] for audit in verdict.audits for one in audit.content.get("models", ())}
    assert besides == {"sum", "three", "slow-sum", "slower"}, "flaky answers as a canary, and is in no audit"
    missing = [one.get("explanation", "") for audit in verdict.audits for one in audit.content.get("missing", ())]
    assert any("nobody was asked again" in why for why in missing), "no kill came between a prediction and its audit"
    ends = {tp: len([one for one in client.read(traffic.queries) if one.partition == tp]) for tp in range(2)}
    assert committed(client, catalogue.router_group, traffic.queries, catalogue.partitions) == ends


def by_the_hosted_model(answer: Record) -> bool:
    """Whether only a host can have given this answer."""
    return answer.content["application"] == "slow" and "default" not in answer.content


def test_hosts(deployment: OwnDeployment, short: bool, fault_report: FaultReport):
    """kill -9 of a host: its queries are answered by the default in time, later ones by the model again."""
    client, catalogue, rng = deployment.client, deployment.catalogue, random.Random(20172)
    kills_s: list[float] = []
    kills = 3 if short else 30
    with (
        deployment.worker("router") as router,
        Watch(client, catalogue.predictions, counts=by_the_hosted_model) as watch,
        Traffic(client, catalogue.prefix, catalogue.partitions) as traffic,
        client.reading(traffic.predictions) as reading,
    ):
        router.ready()
        for _, early in moments(kills, rng):
            with deployment.worker("host", "slow-sum:1") as host:
                if not early:
                    host.ready()
                kills_s.append(killed(host, traffic, rng))
        with deployment.worker("host", "slow-sum:1") as host:
            host.ready()
            before = len(reading.to_the_end())
            reading.until(
                "the slow model answers again",
                lambda records: any(map(by_the_hosted_model, records[before:])),
            )
            traffic.finish()
            verdict = judge(client, catalogue.prefix, APPLICATIONS)
    fault_report.add("kill -9 of a host", verdict, kills=kills, stalls_s=watch.stalls_s(kills_s))
    verdict.check()
    defaults = [one.content["explanation"] for one in verdict.answers if one.content["application"] == "slow"
                and "default" in one.content]  # fmt: skip
    late, early = "no output of slow-sum:1 within 4000 ms", "no model of the application is deployed"
    assert any(one.startswith((late, early)) for one in defaults)
    assert verdict.defaults.keys() <= REASONS | {"no_models"}, "before the first host was ready"


def children(up: Program, role: str) -> list[RunningProcess]:
    return [one for one in up.children() if f" worker {role} " in one.command]


def test_supervisors(deployment: OwnDeployment, short: bool, fault_report: FaultReport):
    """kill -9 of `up`: its workers end by themselves, and the next `up` goes on, whoever of the old still drains."""
    client, catalogue, rng = deployment.client, deployment.catalogue, random.Random(20173)
    kills_s: list[float] = []
    kills = 3 if short else 30
    with (
        ExitStack() as stack,
        Watch(client, catalogue.predictions) as watch,
        Traffic(client, catalogue.prefix, catalogue.partitions) as traffic,
    ):
        left: list[RunningProcess] = []
        for wipe, early in moments(kills, rng):
            up = stack.enter_context(deployment.start("up"))
            if early:
                until("a worker runs", lambda up=up: children(up, "router"))
            else:
                up.ready()
            left += up.children()
            kills_s.append(killed(up, traffic, rng))
            if wipe:  # another machine: the old process cannot touch the new one's files
                until("the old are gone", lambda left=left: not any(process.runs for process in left))
                shutil.rmtree(deployment.data, ignore_errors=True)
        up = stack.enter_context(deployment.start("up"))
        up.ready()
        traffic.finish()
        verdict = judge(client, catalogue.prefix, APPLICATIONS)
        until("nothing is left of those that were killed", lambda: not any(process.runs for process in left))
    fault_report.add("kill -9 of the supervisor", verdict, kills=kills, stalls_s=watch.stalls_s(kills_s))
    verdict.check()
    assert verdict.defaults.keys() <= REASONS


def test_children_of_one_supervisor(tmp_path: Path):
    """With the embedded Kafka: killed workers come back, and nothing at all outlives a killed supervisor."""
    with Program("up", "--config", str(CONFIGURATION), folder=tmp_path) as up:
        client = AnyClient(up.ready()["bootstrap"])
        with Traffic(client, "clipper", partitions=4) as traffic, client.reading(traffic.predictions) as reading:
            for role in ("host", "router"):
                (one,) = until(role, lambda role=role: children(up, role))
                os.kill(one.pid, signal.SIGKILL)
                until("it has ended", lambda one=one: not one.runs)
                until("another one", lambda role=role: children(up, role))
            before = len(reading.to_the_end())
            reading.until(
                "models answer again, so that there is something to learn from",
                lambda records: sum("default" not in one.content for one in records[before:]) > SOME,
            )
            traffic.finish()
            judge(client, "clipper", APPLICATIONS).check(least_applied=1)
        started = up.children()
        assert sum("kafka.Kafka" in process.command for process in started) == 1
        assert sum(" worker " in process.command for process in started) == 3  # with the steward
        up.signal(signal.SIGKILL)
        assert up.ended() == -signal.SIGKILL
        until("nothing is left", lambda: not any(process.runs for process in started), 30.0)
