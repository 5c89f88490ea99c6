"""Whatever is killed, at whatever moment: every query is answered, and every feedback counts exactly once."""

import os
import random
import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from e2e.any_client import AnyClient, Record
from e2e.programs import Program, RunningProcess, until
from e2e.traffic import Traffic
from faults.deployment import APPLICATIONS, CONFIGURATION, OwnDeployment
from faults.report import FaultReport
from faults.restored import judge_twice
from faults.standing import SOME
from faults.verdict import Verdict, judge
from faults.watching import Watch

from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.faults, pytest.mark.alone, pytest.mark.short, pytest.mark.timeout(1800)]

REASONS = {"late", "arrived_late", "errors", "no_models"}
"""Why an answer may be a default while processes are killed; without a model while colocated ones are made again."""
CALM_QUERIES = 480
"""Six seconds of traffic: a worker that served for five is started again at once, one that did not after a while."""
READ_S = 0.3
"""By then the watch has seen what was written before."""
FROZEN_QUERIES = 400
"""A second more than the objectives of the applications."""
NEVER_TWICE = 1_000
"""So many numbers make a billion rows: none is asked twice, so each waits for the host, and none is cached."""
KILLED, LOST, AGAIN, FROZEN = "", ", its data lost", ", and again while it starts", ", frozen before"
"""How something is killed."""


@pytest.fixture
def deployment(kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path) -> OwnDeployment:
    return OwnDeployment.on(kafka, catalogue, tmp_path)


def committed(client: AnyClient, group: str, topic: str, partitions: int) -> dict[int, int]:
    """Where the group goes on reading, by partition."""
    consumer = Consumer({"bootstrap.servers": client.bootstrap, "group.id": group})
    found = consumer.committed([TopicPartition(topic, number) for number in range(partitions)], timeout=60)
    consumer.close()
    return {one.partition: one.offset for one in found}


@dataclass
class Kills:
    """What was killed: when, by `time.monotonic`, and how."""

    watch: Watch
    in_vain: Watch | None = None
    """Of answers to queries that waited in vain for what is frozen."""
    kills: list[tuple[float, str]] = field(default_factory=list)

    def note(self, how: str) -> None:
        """It is killed now."""
        self.kills.append((time.monotonic(), how))

    def wait_for_answers(self) -> None:
        """Until somebody is answered by whoever runs now."""
        since_s = time.monotonic() + READ_S
        until("answers", lambda: any(at_s > since_s for at_s in self.watch.arrivals_s[-1:]))

    def seen_in_vain(self) -> int:
        """How many have waited in vain so far."""
        assert self.in_vain is not None
        return len(self.in_vain.arrivals_s)

    def stalls_s(self) -> dict[str, list[float]]:
        """The longest time without an answer after each kill up to the next one, or now, by how it was done."""
        found: dict[str, list[float]] = {}
        stalls_s = self.watch.stalls_s([*(at_s for at_s, _ in self.kills), time.monotonic()])
        for (_, how), stall_s in zip(self.kills, stalls_s[:-1], strict=True):
            found.setdefault(how, []).append(stall_s)
        return found


def reported(report: FaultReport, case: str, stalls_s: Mapping[str, list[float]], verdict: Verdict) -> None:
    """A line for each way in which it was killed; the verdict, which is about all of them, is in the first."""
    for how in sorted(stalls_s):
        kills = len(stalls_s[how]) * (1 + (how == AGAIN))
        report.add(f"kill -9 of {case}{how}", None if how else verdict, kills=kills, stalls_s=stalls_s[how])


def ways(rng: random.Random, times: Mapping[str, int], short: bool) -> list[str]:
    """So many of each way, in some order; one of each in the short form."""
    found = [*times] if short else [way for way, count in times.items() for _ in range(count)]
    rng.shuffle(found)
    return found


def asked(traffic: Traffic, queries: int) -> None:
    goal = traffic.asked + queries
    until("queries", lambda: traffic.asked >= goal)


def children(up: Program, role: str) -> list[RunningProcess]:
    return [one for one in up.children() if f" worker {role} " in one.command and one.runs]


def child(up: Program, role: str) -> RunningProcess:
    (one,) = until(f"a {role}", lambda: children(up, role))
    return one


def kill(up: Program, role: str, how: str, rng: random.Random, kills: Kills, traffic: Traffic, data: Path) -> None:
    """Kill a child of `up` that has served for a while, and wait for the answers of the next one."""
    asked(traffic, CALM_QUERIES + rng.randrange(120))
    one = child(up, role)
    if how in (FROZEN, LOST):
        os.kill(one.pid, signal.SIGSTOP)
    if how == FROZEN:
        seen = kills.seen_in_vain()
        asked(traffic, FROZEN_QUERIES)
        until("a query that waited in vain", lambda: kills.seen_in_vain() > seen)
    if how == LOST:
        data.rename(data.with_name(f"{data.name} {len(kills.kills)}"))
    kills.note(how)
    os.kill(one.pid, signal.SIGKILL)
    until("its end", lambda: not one.runs)
    if how == AGAIN:
        second = child(up, role)
        asked(traffic, rng.randrange(40))
        os.kill(second.pid, signal.SIGKILL)
        until("its end", lambda: not second.runs)
    kills.wait_for_answers()


def test_routers(deployment: OwnDeployment, short: bool, fault_report: FaultReport):
    """kill -9 of the router that `up` keeps: while it starts, recovers, decides and learns."""
    client, catalogue, rng = deployment.client, deployment.catalogue, random.Random(20171)
    with (
        deployment.start("up") as up,
        Watch(client, catalogue.predictions) as watch,
        Traffic(client, catalogue.prefix, catalogue.partitions) as traffic,
    ):
        up.ready()
        kills = Kills(watch)
        kills.wait_for_answers()
        for how in ways(rng, {KILLED: 40, LOST: 8, AGAIN: 8}, short):
            kill(up, "router", how, rng, kills, traffic, deployment.data)
        stalls_s = kills.stalls_s()
        traffic.finish()
        verdict = judge_twice(deployment, up)
    reported(fault_report, "the router", stalls_s, verdict)
    verdict.check()
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


def waited_in_vain(answer: Record) -> bool:
    """Whether this is the default because the host was not there."""
    said = str(answer.content.get("explanation", ""))
    return answer.content["application"] == "slow" and said.startswith("no output of slow-sum:1 within 4000 ms")


def test_hosts(deployment: OwnDeployment, short: bool, fault_report: FaultReport):
    """kill -9 of the host that `up` keeps: queries are answered by the default in time, later ones by the model."""
    client, catalogue, rng = deployment.client, deployment.catalogue, random.Random(20172)
    with (
        deployment.start("up") as up,
        Watch(client, catalogue.predictions, counts=by_the_hosted_model) as watch,
        Watch(client, catalogue.predictions, counts=waited_in_vain) as in_vain,
        Traffic(client, catalogue.prefix, catalogue.partitions, numbers=NEVER_TWICE) as traffic,
    ):
        up.ready()
        kills = Kills(watch, in_vain)
        kills.wait_for_answers()
        for how in ways(rng, {KILLED: 40, FROZEN: 2, AGAIN: 8}, short):
            kill(up, "host", how, rng, kills, traffic, deployment.data)
        stalls_s = kills.stalls_s()
        traffic.finish()
        verdict = judge_twice(deployment, up)
    reported(fault_report, "a host", stalls_s, verdict)
    verdict.check()
    assert any(waited_in_vain(one) for one in verdict.answers)
    assert verdict.defaults.keys() <= REASONS


def test_supervisors(deployment: OwnDeployment, short: bool, fault_report: FaultReport):
    """kill -9 of `up`: its workers end by themselves, and the next `up` goes on, whoever of the old still drains."""
    client, catalogue, rng = deployment.client, deployment.catalogue, random.Random(20173)
    with (
        ExitStack() as stack,
        Watch(client, catalogue.predictions) as watch,
        Traffic(client, catalogue.prefix, catalogue.partitions) as traffic,
    ):
        kills, left = Kills(watch), set[RunningProcess]()
        up = stack.enter_context(deployment.start("up"))
        up.ready()
        kills.wait_for_answers()
        for how in ways(rng, {KILLED: 20, LOST: 5, AGAIN: 5}, short):
            asked(traffic, rng.randrange(20, 200))
            left |= up.children()
            kills.note(how)
            up.signal(signal.SIGKILL)
            up.ended()
            if how == LOST:  # another machine: the old process cannot touch the new one's files
                until("the old are gone", lambda left=left: not any(process.runs for process in left))
                shutil.rmtree(deployment.data, ignore_errors=True)
            up = stack.enter_context(deployment.start("up"))
            if how == AGAIN:
                child(up, "router")
                left |= up.children()
                up.signal(signal.SIGKILL)
                up.ended()
                up = stack.enter_context(deployment.start("up"))
            up.ready()
            kills.wait_for_answers()
        stalls_s = kills.stalls_s()
        traffic.finish()
        verdict = judge_twice(deployment, up)
        until("nothing is left of those that were killed", lambda: not any(process.runs for process in left))
    reported(fault_report, "the supervisor", stalls_s, verdict)
    verdict.check()
    assert verdict.defaults.keys() <= REASONS


@pytest.mark.long
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
