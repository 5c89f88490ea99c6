"""Versions come and go under traffic: nothing is lost, one that cannot be loaded says so, and none leaves a trace."""

import itertools
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from e2e.any_client import AnyClient, Record
from e2e.programs import RunningProcess, until
from e2e.traffic import APPLICATIONS as ASKING
from e2e.traffic import Traffic
from faults.deployment import APPLICATIONS, OwnDeployment
from faults.report import FaultReport
from faults.restored import judge_twice
from faults.watching import memory_mib

from clipper_agents.broker.properties import free_port
from clipper_agents.observability.exposition import scrape
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

TOGETHER = 5
"""Versions that come and go at a time: four in hosts, one of them in two, and one in the router."""
OUTCOMES = (
    "clipper_predictions",
    "clipper_prediction_latency",
    "clipper_feedback",
    "clipper_dead_letters",
    "clipper_rows_total",
)
"""Families by outcome, of which there are a few: a first late answer is a new series, and no trace of a version."""
GROWTH_MIB = 10.0
"""More than the traffic alone makes a router grow."""
QUIET_QUERIES = 3_000
SLACK_RATIO = 0.25
"""By how much that growth differs from one stretch to the next."""


class Control:
    """Writes manifests as any client may."""

    def __init__(self, client: AnyClient, catalogue: Catalogue) -> None:
        self._client, self._topic = client, catalogue.control
        self._revision = itertools.count(2)

    def model(self, ref: str, **changes: Any) -> None:
        name, _, version = ref.partition(":")
        uri = "clipper_agents.examples.models:sum_of_row"
        content = {"name": name, "version": version, "uri": uri, **changes}
        self._client.send_json(self._topic, content, key=f"model/{ref}".encode())

    def withdraw(self, ref: str) -> None:
        self._client.send(self._topic, None, key=f"model/{ref}".encode())

    def picks(self, *refs: str) -> None:
        """These beside the models that the application has anyway."""
        declared = APPLICATIONS["picks"]
        content = {**declared, "models": [*declared["models"], *refs], "revision": next(self._revision)}
        self._client.send_json(self._topic, content, key=b"application/picks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """What a deployment has and holds."""

    processes: frozenset[str]
    topics: frozenset[str]
    groups: frozenset[str]
    reports: frozenset[str]
    paths: frozenset[str]
    series: frozenset[tuple[str, frozenset[tuple[str, str]]]]
    open_files: int
    threads: int

    def differences(self, before: "Traces") -> dict[str, Any]:
        """What differs: counts by more than two, sets by anything."""
        found: dict[str, Any] = {}
        for one in fields(self):
            now, then = getattr(self, one.name), getattr(before, one.name)
            if isinstance(now, frozenset):
                if now != then:
                    found[one.name] = {"more": sorted(now - then, key=str), "less": sorted(then - now, key=str)}
            elif abs(now - then) > 2:
                found[one.name] = (then, now)
        return found


class Running:
    """`up` with the deployment of kills.toml on a Kafka that others use too."""

    def __init__(self, kafka: KafkaConnection, catalogue: Catalogue, folder: Path) -> None:
        self.deployment = OwnDeployment.on(kafka, catalogue, folder)
        self.client, self.catalogue, self.folder = self.deployment.client, catalogue, folder
        self.control = Control(self.client, catalogue)
        self.metrics_port = free_port()
        self._temporary, self._hosts = folder / "temporary", folder / "hosts"
        self._temporary.mkdir()
        self.deployment.environ["TMPDIR"] = str(self._temporary)
        self.deployment.environ["CLIPPER_MODELS_ALLOWED_MODULES"] = "clipper_agents.examples.models:,broken_model:"
        self._admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        settings = (f"host.data_dir={self._hosts}", f"router.metrics_port={self.metrics_port}")
        self.up = self.deployment.start("up", *(word for one in settings for word in ("--set", one)))

    def child(self, words: str) -> RunningProcess:
        """The child with these words in its command."""
        return until(
            words, lambda: next((one for one in self.up.children() if words in one.command and one.runs), None)
        )

    @property
    def topics(self) -> frozenset[str]:
        return frozenset(name for name in self._admin.list_topics(timeout=60).topics if self._ours(name))

    def reports(self) -> dict[str, Mapping[str, Any]]:
        """The newest report of each host that has one."""
        newest: dict[str, Record] = {(one.key or b"").decode(): one for one in self.client.read(self.catalogue.hosts)}
        return {key: one.content for key, one in newest.items() if one.value}

    def traces(self) -> Traces:
        router = self.child("worker router").pid
        groups = self._admin.list_consumer_groups().result(60).valid
        paths = [*self._hosts.glob("*"), *self._temporary.glob("*/*")]
        series = scrape(self.metrics_port).samples
        return Traces(
            processes=frozenset(one.command for one in self.up.children() if one.runs),
            topics=self.topics,
            groups=frozenset(group.group_id for group in groups if self._ours(group.group_id)),
            reports=frozenset(f"{key} {one['state']}" for key, one in self.reports().items()),
            paths=frozenset(str(path.relative_to(self.folder)) for path in paths),
            series=frozenset(one for one in series if _of_version(one[1]) or not _comes_late(*one)),
            open_files=sum(1 for one in Path(f"/proc/{router}/fd").iterdir() if not self._is_data(one)),
            threads=len([*Path(f"/proc/{router}/task").iterdir()]),
        )

    def _is_data(self, descriptor: Path) -> bool:
        """Whether it is a file of a database, of which more traffic makes more."""
        try:
            return descriptor.readlink().is_relative_to(self.deployment.data)
        except OSError:
            return False

    def _ours(self, name: str) -> bool:
        return name.startswith(f"{self.catalogue.prefix}.")


@pytest.fixture
def running(kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path) -> Iterator[Running]:
    one = Running(kafka, catalogue, tmp_path)
    with one.up:
        one.up.ready()
        yield one


def _comes_late(name: str, labels: frozenset[tuple[str, str]]) -> bool:
    """Whether a series may be new without a version: of an outcome, or of a model that is asked for the first time."""
    return name.startswith(OUTCOMES) or "model" in dict(labels)


def _of_version(labels: frozenset[tuple[str, str]]) -> bool:
    """Whether a series is about one of the versions that come and go."""
    return any(name == "model" and value.partition(":")[0] == "v" for name, value in labels)


def come(running: Running, refs: Sequence[str]) -> None:
    """Deploy versions, and wait until each of them is asked by traffic."""
    for number, ref in enumerate(refs):
        running.control.model(ref, colocated=number == 0, replicas=2 if number == 1 else 1)
    hosted = set(refs[1:])
    until("hosts", lambda: hosted <= {one["model"] for one in running.reports().values() if one["state"] == "ready"})
    running.control.picks(*refs)
    wanted = set(refs)
    with running.client.reading(running.catalogue.predictions) as reading:
        asked: set[str] = set()
        end_s = time.monotonic() + 120
        while not wanted <= asked:
            assert time.monotonic() < end_s, wanted - asked
            for one in reading.more():
                asked |= {f"{use['model']}:{use['version']}" for use in one.content.get("models", [])}


def go(running: Running, refs: Sequence[str]) -> None:
    """Take them out of the application, retire and withdraw them."""
    running.control.picks()
    for number, ref in enumerate(refs):
        running.control.model(ref, colocated=number == 0, replicas=2 if number == 1 else 1, retired=True)
    gone = {running.catalogue.requests(*ref.split(":")) for ref in refs}
    until("their topics to be gone", lambda: gone.isdisjoint(running.topics))
    for ref in refs:
        running.control.withdraw(ref)


@pytest.mark.short
def test_versions_that_come_and_go_leave_nothing_behind(
    running: Running, short: bool, fault_report: FaultReport
) -> None:
    client, catalogue = running.client, running.catalogue
    rounds = 1 if short else 10
    with Traffic(client, catalogue.prefix, catalogue.partitions) as traffic:
        until("traffic of which every part is measured", lambda: all_measured(running))
        before = running.traces()
        router = running.child("worker router").pid
        a_query_mib = 0.0 if short else growth_of_a_query_mib(traffic, router)
        began_s, memory_before_mib, asked_before = time.monotonic(), memory_mib(router), traffic.asked
        for turn in range(rounds):
            refs = [f"v:{turn}-{number}" for number in range(TOGETHER)]
            come(running, refs)
            go(running, refs)
        took_s = time.monotonic() - began_s
        left = until_no_trace(running, before)
        grown_mib, asked = memory_mib(router) - memory_before_mib, traffic.asked - asked_before
        traffic.finish()
    verdict = judge_twice(running.deployment, running.up)
    by_traffic_mib = asked * a_query_mib
    note = (
        f"{rounds * TOGETHER} in {took_s:.0f} s, router {grown_mib:+.1f} MiB, of which {by_traffic_mib:.1f} by traffic"
    )
    fault_report.add("versions that come and go", verdict, note=note)
    verdict.check()
    assert not left
    assert short or grown_mib <= GROWTH_MIB + (1 + SLACK_RATIO) * by_traffic_mib
    assert "child ended, restarting" not in running.up.log


def growth_of_a_query_mib(traffic: Traffic, router: int) -> float:
    """How much a router grows with a query while no version comes or goes."""
    asked, before_mib = traffic.asked, memory_mib(router)
    until("some traffic", lambda: traffic.asked >= asked + QUIET_QUERIES)
    return max(0.0, memory_mib(router) - before_mib) / QUIET_QUERIES


def all_measured(running: Running) -> bool:
    """Whether the router has measured each of its partitions, and answers to each application."""
    samples = scrape(running.metrics_port).samples
    partitions = sum(name == "clipper_consumer_lag" for name, _ in samples)
    asked = {dict(labels)["application"] for name, labels in samples if name == "clipper_queries_total"}
    stages = {dict(labels)["stage"] for name, labels in samples if name == "clipper_stage_latency_seconds_count"}
    return partitions == 3 * running.catalogue.partitions and asked >= {*ASKING} and {"record", "return"} <= stages


def until_no_trace(running: Running, before: Traces) -> dict[str, Any]:
    """What is left of them: nothing, or what there is after half a minute."""
    end_s = time.monotonic() + 30
    while (left := running.traces().differences(before)) and time.monotonic() < end_s:
        time.sleep(0.5)  # between two looks at other processes
    return left


def test_a_version_that_cannot_be_loaded_says_why_and_costs_no_answer(running: Running) -> None:
    """And a host that is killed is said to have failed, and to be ready again."""
    client, catalogue = running.client, running.catalogue
    (running.folder / "broken_model.py").write_text("import no_such_library\n")
    with Traffic(client, catalogue.prefix, catalogue.partitions) as traffic:
        until("traffic", lambda: traffic.asked > 100)
        running.control.picks("broken:1", "missing:1")
        running.control.model("broken:1", uri="broken_model:f")
        running.control.model("missing:1", uri="no_such_library.models:f")
        failed = until(
            "reports of failures",
            lambda: found if len(found := _failures(running)) == 2 else None,
        )
        assert "No module named 'no_such_library'" in failed["broken:1"]
        assert "outside" in failed["missing:1"]
        host = running.child("host slow-sum:1 ")
        os.kill(host.pid, signal.SIGKILL)
        states = until("a ready host", lambda: _ready_again(running))
        traffic.finish()
    assert states == ["failed", "starting", "ready"]
    verdict = judge_twice(running.deployment, running.up)
    verdict.check()
    asked = {use["model"] for one in verdict.answers for use in one.content.get("models", [])}
    assert asked.isdisjoint({"broken", "missing"})


def _failures(running: Running) -> dict[str, str]:
    return {one["model"]: one["reason"] for one in running.reports().values() if one["state"] == "failed"}


def _ready_again(running: Running) -> list[str] | None:
    """The states of the host of slow-sum after its first ready report, once it is ready for a second time."""
    said = [one for one in running.client.read(running.catalogue.hosts) if one.key == b"slow-sum:1/host.slow-sum.1.0"]
    states = [one.content["state"] if one.value else "gone" for one in said]
    after = states[states.index("ready") + 1 :] if "ready" in states else []
    return after if after and after[-1] == "ready" else None
