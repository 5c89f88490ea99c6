"""Whenever queries are not answered as promised, console and `status` say so within 15 s, alike; and never otherwise.

A walk through states of a deployment of two routers and two hosts, a second at a time: processes run, are frozen,
killed or ended, the broker is away, the model fails. Kafka is a few lists; what reads it and says so is the product.
"""

import asyncio
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from aiokafka import TopicPartition
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaConnectionError
from builders.kafka import record
from builders.status import NOW_S, prediction
from unit.gateway.rig import NO_KAFKA

from clipper_agents.kafka.reader import Range
from clipper_agents.status import cluster
from clipper_agents.status.build import StatusBuilder
from clipper_agents.status.cluster import ASK_EVERY_S, ClusterReader
from clipper_agents.status.deployment_view import DeploymentView
from clipper_agents.status.model import BrokerStatus
from clipper_agents.status.problems import problems_of
from clipper_agents.status.traffic_window import TrafficWindow
from clipper_gateway.console.follower import SILENT, LiveView
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.control_keys import key_of
from clipper_topics.host_report import HostReport, report_key
from clipper_topics.manifests import ApplicationManifest, ModelManifest
from clipper_topics.prediction import Missing

WITHIN_S, SESSION_S = 15, 10
OBJECTIVE_MS, QUERIES_A_SECOND, PARTITIONS = 500, 10, 2
CATALOGUE = Catalogue(partitions=PARTITIONS)
HERE = NO_KAFKA[0], CATALOGUE
MODEL = ModelManifest(name="svm", uri="shop:svm", replicas=2)
DIGITS = ApplicationManifest(name="digits", models=[MODEL.ref], objective_ms=OBJECTIVE_MS)
REQUESTS = CATALOGUE.requests(MODEL.name, MODEL.version)
QUERY = b'{"application": "digits", "input": [1]}'
INPUTS = {
    CATALOGUE.router_group: (CATALOGUE.queries, CATALOGUE.feedback, CATALOGUE.outputs),
    CATALOGUE.host_group(MODEL.name, MODEL.version): (REQUESTS,),
}
ROUTERS, HOSTS = INPUTS
STATES = "runs", "runs", "frozen", "killed", "ended"


@dataclass
class Process:
    group: str
    name: str
    state: str = "runs"
    heard_s: float = NOW_S
    reports: bool = False


@dataclass
class Walk:
    """A deployment; for `bad_s` queries were not answered as promised, for `well_s` all was well."""

    now_s: float = NOW_S
    broker: bool = True
    fails: bool = False
    bad_s: int = 0
    well_s: int = 0
    stable_s: int = 0
    facts: DeploymentView = field(default_factory=DeploymentView)
    recent: TrafficWindow = field(default_factory=TrafficWindow)
    _client: None = None
    unread: dict[TopicPartition, Range] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.facts.control(key_of(MODEL), codec.models.encode(MODEL))
        self.facts.control(key_of(DIGITS), codec.applications.encode(DIGITS))
        self.processes = [Process(ROUTERS, f"router-{number}") for number in range(2)]
        self.processes += [Process(HOSTS, f"host.svm.1.{number}") for number in range(2)]
        self.members: dict[str, list[str]] = {ROUTERS: [], HOSTS: []}
        places = [
            TopicPartition(topic, number) for of in INPUTS.values() for topic in of for number in range(PARTITIONS)
        ]
        self.asked: dict[TopicPartition, list[float]] = {tp: [] for tp in places}
        self.committed = dict.fromkeys(places, 0)

    def change(self, draw: random.Random) -> None:
        """Something breaks or is mended; now and then everything is."""
        self.stable_s = 0
        self.bad_s *= self.broker  # what an outage was is over with it
        if draw.random() < 0.3:
            self.broker, self.fails = True, False
            for one in self.processes:
                one.state = "runs"
            return
        which = draw.randrange(len(self.processes) + 2)
        if which < len(self.processes):
            self.processes[which].state = draw.choice(STATES)
        elif which == len(self.processes):
            self.broker = not self.broker
        else:
            self.fails = not self.fails

    def second(self) -> None:
        """Everybody does what there is to do in a second."""
        self.now_s += 1
        self.stable_s += 1
        is_good = self.broker and self._work()
        is_whole = is_good and not self.fails and all(one.state == "runs" for one in self.processes)
        self.bad_s, self.well_s = 0 if is_good else self.bad_s + 1, self.well_s + 1 if is_whole else 0

    def _work(self) -> bool:
        for one in self.processes:
            if one.state == "runs":
                one.heard_s = self.now_s
            if one.reports != (one.state != "ended") and one.state in {"runs", "ended"}:
                self._report(one)
        for group in self.members:
            self.members[group] = [
                one.name for one in self.processes if one.group == group and self.now_s - one.heard_s < SESSION_S
            ]
        for number in range(QUERIES_A_SECOND):
            place = TopicPartition(CATALOGUE.queries, number % PARTITIONS)
            self.asked[place].append(self.now_s - 1 + number / QUERIES_A_SECOND)
        answered = [self._answer(partition) for partition in range(PARTITIONS)]
        return all(answered)

    def _report(self, one: Process) -> None:
        one.reports = one.state == "runs"
        model = MODEL.ref if one.group == HOSTS else ""
        said = HostReport(model=model, instance=one.name, state="ready", at_ms=int(1000 * self.now_s), pid=7)
        self.facts.host(report_key(model, one.name), codec.host_reports.encode(said) if one.reports else None)

    def _answer(self, partition: int) -> bool:
        """A router answers what waits in a partition of the queries; whether all of it was answered as promised."""
        queries, requests = TopicPartition(CATALOGUE.queries, partition), TopicPartition(REQUESTS, partition)
        if self._runs(HOSTS, partition):
            self.committed[requests] = len(self.asked[requests])
        if not self._runs(ROUTERS, partition):
            return False
        waiting, is_good = self.asked[queries][self.committed[queries] :], True
        self.committed[queries] = len(self.asked[queries])
        for asked_s in waiting:
            found = prediction(0, None, latency_ms=1000 * (self.now_s - asked_s))
            (found.missing[0].model, found.missing[0].version), found.reason = (MODEL.name, MODEL.version), "late"
            if self.now_s - asked_s > 1:
                found.missing = []
            elif not any(one.reports and one.group == HOSTS for one in self.processes):
                found.missing, found.reason = [], "no_models"
            else:
                self.asked[requests].append(self.now_s)
                found.latency_ms = float(OBJECTIVE_MS)
                if self._runs(HOSTS, partition):
                    self.committed[requests] += 1
                    found = prediction(0, None if self.fails else MODEL.ref, latency_ms=20.0)
                if self._runs(HOSTS, partition) and self.fails:
                    found.missing = [
                        Missing(
                            model=MODEL.name,
                            version=MODEL.version,
                            propensity=1.0,
                            reason="error",
                            explanation="no such file",
                        )
                    ]
                    found.reason = "errors"
            self.recent.predicted(found, asked_s, self.now_s)
            is_good &= not found.default
        return is_good

    def _owner(self, group: str, partition: int) -> str | None:
        members = self.members[group]
        return members[partition % len(members)] if members else None

    def _runs(self, group: str, partition: int) -> bool:
        owner = self._owner(group, partition)
        return any(one.name == owner and one.state == "runs" for one in self.processes)

    # --- as Kafka tells it ------------------------------------------------------------------------------------------
    async def start(self) -> None:
        if not self.broker:
            raise KafkaConnectionError("away")

    async def close(self) -> None:
        pass

    async def describe_cluster(self) -> dict[str, Any]:
        return {"brokers": [{"node_id": 1, "host": "10.0.0.9", "port": 9092}], "controller_id": 1}

    async def describe_topics(self) -> list[dict[str, Any]]:
        counts = {spec.name: spec.partitions for spec in CATALOGUE.fixed_topics()} | {REQUESTS: PARTITIONS}
        of = {"leader": 1, "isr": [1], "replicas": [1]}
        return [
            {"topic": topic, "partitions": [{"partition": number, **of} for number in range(count)]}
            for topic, count in counts.items()
        ]

    async def describe_group(self, _: Any, group: str, partitions: list[TopicPartition], __: float) -> tuple[Any, Any]:
        members = [
            {
                "member_id": f"{name}-{UUID(int=7)}",
                "client_host": "/10.0.0.1",
                "member_assignment": ConsumerProtocolMemberAssignment(
                    0,
                    [
                        (topic, [one for one in range(PARTITIONS) if self._owner(group, one) == name])
                        for topic in INPUTS[group]
                    ],
                    b"",
                ).encode(),
            }
            for name in self.members[group]
        ]
        state = "Stable" if members else "Empty"
        return {"state": state, "members": members}, {tp: self.committed[tp] for tp in partitions}

    async def ranges(self, partitions: Any) -> dict[TopicPartition, Range]:
        return {tp: Range(0, len(self.asked[tp])) for tp in partitions}

    def assign(self, ranges: dict[TopicPartition, Range]) -> None:
        self.unread = dict(ranges)

    async def fetch(self, partitions: Any, *_: Any) -> dict[TopicPartition, list[Any]]:
        firsts = {tp: self.unread.pop(tp).first for tp in partitions}
        return {
            tp: [record(first, QUERY, topic=tp.topic, timestamp=int(1000 * self.asked[tp][first]))]
            for tp, first in firsts.items()
        }

    async def offsets_at(self, *_: Any) -> dict[TopicPartition, int]:
        return {}

    async def end_offsets(self, partitions: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    async def sleep(self, seconds: float) -> None:
        """A second passes while `status` looks for the second time."""
        assert seconds == cluster.LOOKS_APART_S
        self.second()

    # --- who looks --------------------------------------------------------------------------------------------------
    async def status(self) -> list[str]:
        """The lines of `status`, and of its JSON."""
        async with ClusterReader(*HERE) as reader:
            seen = await reader.read(self.facts)
        builder = StatusBuilder(facts=self.facts, recent=self.recent, now_s=self.now_s, cluster=seen)
        return [*map(str, problems_of(builder.status(CATALOGUE.prefix)))]


async def nothing(*_: Any) -> Any:
    return ()


async def reachable(*_: Any) -> Any:
    return BrokerStatus(node_id=1, address="10.0.0.9:9092", reachable=True)


@pytest.fixture
def walk(monkeypatch):
    made = Walk()
    clock = SimpleNamespace(time=lambda: made.now_s, monotonic=lambda: made.now_s)
    for name, double in {
        "time": clock,
        "asyncio": SimpleNamespace(**vars(asyncio) | {"sleep": made.sleep}),
        "make_admin": lambda *_: made,
        "stop": nothing,
        "LogReader": lambda *_, **__: made,
        "describe_group": made.describe_group,
        "_broker": reachable,
    }.items():
        monkeypatch.setattr(cluster, name, double)
    return made


def words(lines: Iterable[str]) -> set[str]:
    """What is said, whatever the figures of that moment are."""
    return {re.sub(r"\d+(\.\d+)?", "#", line) for line in lines}


@pytest.mark.parametrize("states", [200, pytest.param(2_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
async def test_what_is_not_as_promised_is_said_by_all_in_the_same_words_and_never_otherwise(walk, states):
    history: Any = SimpleNamespace(reason="", add=lambda *_: None)
    console = LiveView(*HERE, history, lambda: walk.now_s)
    console.facts, console.recent, console.is_read, console.stale_reason = walk.facts, walk.recent, True, ""
    draw, reader, asked_s = random.Random(2_000), ClusterReader(*HERE), 0.0

    async def look() -> Sequence[str]:
        nonlocal asked_s
        console._note(walk.broker)
        console.look()
        if walk.broker and walk.now_s - asked_s >= ASK_EVERY_S:
            console.cluster.newest, asked_s = await reader.read(walk.facts), walk.now_s
        await console.keep(int(walk.now_s))
        return [*map(str, console.problems())]

    for _ in range(states):
        walk.change(draw)
        seconds = draw.choice([1, 3, 8, 18, 18, 30])
        for _ in range(seconds):
            walk.second()
            said = await look()
            assert said or walk.bad_s < WITHIN_S, f"{walk.processes}"
            assert not said or walk.well_s < WITHIN_S, said
        if not walk.broker:
            assert any(line.startswith(SILENT) for line in said) or seconds < WITHIN_S
            with pytest.raises(KafkaConnectionError):
                await walk.status()
        elif walk.stable_s >= WITHIN_S:
            told = await walk.status()
            assert words(told) == words(await look())
