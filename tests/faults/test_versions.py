"""Versions come and go under traffic: nothing is lost, one that cannot be loaded says so, and none leaves a trace."""

import itertools
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from e2e.any_client import Record
from e2e.programs import reserved_port, until
from e2e.traffic import APPLICATIONS as ASKING
from faults.deployment import Deployment, child
from faults.under_traffic import UnderTraffic
from faults.watching import memory_mib

from clipper_agents.observability.exposition import scrape

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

TOGETHER = 5
"""Versions that come and go at a time: four in hosts, one of them in two, and one in the router."""
OUTCOMES = (
    "clipper_predictions", "clipper_prediction_latency", "clipper_feedback", "clipper_dead_letters",
    "clipper_rows_total",
)  # fmt: skip
"""Families by outcome, of which there are a few: a first late answer is a new series, and no trace of a version."""
GROWTH_MIB = 10.0
"""More than the traffic alone makes a router grow."""
QUIET_QUERIES = 3_000
SLACK_RATIO = 0.25
"""By how much that growth differs from one stretch to the next."""
NO_TRACE_S = 30.0


class Versions(UnderTraffic):
    """`up`, and manifests as any client may write them."""

    def begin(self, metrics_port: int) -> None:
        self._port, folder = metrics_port, self.deployment.folder
        self._temporary, self._hosts = Path(self.deployment.environ["TMPDIR"]), folder / "hosts"
        self._temporary.mkdir()
        self._admin = AdminClient({"bootstrap.servers": self.client.bootstrap})
        self._revision = itertools.count(2)
        settings = dict(host_data_dir=self._hosts, router_metrics_port=metrics_port)
        self.up = self.serve(self.deployment.start("up", **settings))

    # --- writing --------------------------------------------------------------------------------------------------
    def model(self, ref: str, **changes: Any) -> None:
        name, _, version = ref.partition(":")
        uri = "clipper_agents.examples.models:sum_of_row"
        content = {"name": name, "version": version, "uri": uri, **changes}
        self.client.send_json(self.catalogue.control, content, key=f"model/{ref}".encode())

    def picks(self, *refs: str) -> None:
        """These beside the models that the application has anyway."""
        declared = self.deployment.applications["picks"]
        content = {**declared, "models": [*declared["models"], *refs], "revision": next(self._revision)}
        self.client.send_json(self.catalogue.control, content, key=b"application/picks")

    def declare(self, refs: Sequence[str], **changes: Any) -> None:
        for number, ref in enumerate(refs):
            self.model(ref, colocated=number == 0, replicas=2 if number == 1 else 1, **changes)

    def deploy(self, refs: Sequence[str]) -> None:
        """Deploy them, and wait until each is asked by traffic."""
        self.declare(refs)
        hosted = {*refs[1:]}
        until("hosts", lambda: hosted <= {one["model"] for one in self.reports().values() if one["state"] == "ready"})
        self.picks(*refs)
        with self.client.reading(self.catalogue.predictions) as reading:
            reading.until("each is asked", lambda records: versions_asked(records).issuperset(refs))

    def retire(self, refs: Sequence[str]) -> None:
        """Take them out of the application, retire and withdraw them."""
        self.picks()
        self.declare(refs, retired=True)
        gone = {self.catalogue.requests(*ref.split(":")) for ref in refs}
        until("their topics to be gone", lambda: gone.isdisjoint(self.topics()))
        for ref in refs:
            self.client.send(self.catalogue.control, None, key=f"model/{ref}".encode())

    # --- looking --------------------------------------------------------------------------------------------------
    @property
    def router(self) -> int:
        return child(self.up, "worker router").pid

    def topics(self) -> set[str]:
        return {*filter(self._is_ours, self._admin.list_topics(timeout=60).topics)}

    def reports(self) -> dict[str, Mapping[str, Any]]:
        """The newest report of each host that has one."""
        newest: dict[str, Record] = {(one.key or b"").decode(): one for one in self.client.read(self.catalogue.hosts)}
        return {key: one.content for key, one in newest.items() if one.value and one.content["model"]}

    def failures(self) -> dict[str, str]:
        return {one["model"]: one["reason"] for one in self.reports().values() if one["state"] == "failed"}

    def all_measured(self) -> bool:
        """Whether the router has measured each of its partitions, and answers to each application."""
        samples = scrape(self._port).samples
        partitions = sum(name == "clipper_consumer_lag" for name, _ in samples)
        asked = {dict(labels)["application"] for name, labels in samples if name == "clipper_queries_total"}
        stages = {dict(labels)["stage"] for name, labels in samples if name == "clipper_stage_latency_seconds_count"}
        return partitions == 3 * self.catalogue.partitions and asked >= {*ASKING} and {"record", "return"} <= stages

    def traces(self) -> dict[str, Any]:
        groups, process = self._admin.list_consumer_groups().result(60).valid, Path(f"/proc/{self.router}")
        data = self.deployment.data.resolve()  # more traffic makes more files of databases
        return {
            "processes": {one.command for one in self.up.children() if one.runs},
            "topics": self.topics(),
            "groups": {*filter(self._is_ours, (group.group_id for group in groups))},
            "reports": {f"{key} {one['state']}" for key, one in self.reports().items()},
            "paths": {*self._hosts.glob("*"), *self._temporary.glob("*/*")},
            "series": {one for one in scrape(self._port).samples if _is_lasting(*one)},
            "open files": sum(not one.resolve().is_relative_to(data) for one in (process / "fd").iterdir()),
            "threads": len([*(process / "task").iterdir()]),
        }

    def differences(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """What differs from before: counts by more than two, sets by anything."""
        now = self.traces()
        sets = {name: now[name] ^ then for name, then in before.items() if isinstance(then, set)}
        counts = {name: now[name] - then for name, then in before.items() if isinstance(then, int)}
        return {name: each for name, each in sets.items() if each} | {
            name: more for name, more in counts.items() if abs(more) > 2
        }

    def _is_ours(self, name: str) -> bool:
        return name.startswith(f"{self.catalogue.prefix}.")


@pytest.fixture
def versions(kafka, catalogue, tmp_path, fault_report):
    allowed = "clipper_agents.examples.models:,broken_model:"
    environ = {"TMPDIR": str(tmp_path / "temporary"), "CLIPPER_MODELS_ALLOWED_MODULES": allowed}
    deployment = Deployment.on(kafka, catalogue, tmp_path, **environ)
    with reserved_port() as port, Versions(deployment, fault_report) as one:
        one.begin(port)
        yield one


def _is_lasting(name: str, labels: frozenset[tuple[str, str]]) -> bool:
    """Whether a series is about a version that comes and goes, or new for no other reason.

    Others may be new when there is an outcome, or a model is asked, for the first time.
    """
    model = dict(labels).get("model")
    return not name.startswith(OUTCOMES) if model is None else model.partition(":")[0] == "v"


@pytest.mark.short
def test_versions_that_come_and_go_leave_nothing_behind(versions, short):
    rounds, traffic = 1 if short else 10, versions.traffic
    until("traffic of which every part is measured", versions.all_measured)
    before, router = versions.traces(), versions.router
    a_query_mib = 0.0 if short else growth_of_a_query_mib(versions)
    began_s, memory_before_mib, asked_before = time.monotonic(), memory_mib(router), traffic.asked
    for turn in range(rounds):
        refs = [f"v:{turn}-{number}" for number in range(TOGETHER)]
        versions.deploy(refs)
        versions.retire(refs)
    took_s = time.monotonic() - began_s
    while (left := versions.differences(before)) and time.monotonic() < began_s + took_s + NO_TRACE_S:
        time.sleep(0.5)  # between two looks at other processes
    grown_mib, by_traffic_mib = memory_mib(router) - memory_before_mib, a_query_mib * (traffic.asked - asked_before)
    verdict, count = versions.judged(versions.up), rounds * TOGETHER
    note = f"{count} in {took_s:.0f} s, router {grown_mib:+.1f} MiB, of which {by_traffic_mib:.1f} by traffic"
    versions.conclude("versions that come and go", verdict, note=note)
    assert left == {}
    assert short or grown_mib <= GROWTH_MIB + (1 + SLACK_RATIO) * by_traffic_mib
    assert "child ended, restarting" not in versions.up.log


def versions_asked(answers: Sequence[Record]) -> set[str]:
    return {f"{use['model']}:{use['version']}" for one in answers for use in one.content.get("models", [])}


def growth_of_a_query_mib(versions: Versions) -> float:
    """How much a router grows with a query while no version comes or goes."""
    before_mib = memory_mib(versions.router)
    versions.asks(QUIET_QUERIES)
    return max(0.0, memory_mib(versions.router) - before_mib) / QUIET_QUERIES


def test_a_version_that_cannot_be_loaded_says_why_and_costs_no_answer(versions):
    """And a host that is killed is said to have failed, and to be ready again."""
    (versions.deployment.folder / "broken_model.py").write_text("import no_such_library\n")
    versions.asks()
    versions.picks("broken:1", "missing:1")
    versions.model("broken:1", uri="broken_model:f")
    versions.model("missing:1", uri="no_such_library.models:f")
    failed = until("reports of failures", lambda: len(found := versions.failures()) == 2 and found)
    assert "No module named 'no_such_library'" in failed["broken:1"]
    assert "outside" in failed["missing:1"]
    os.kill(child(versions.up, "host slow-sum:1 ").pid, signal.SIGKILL)
    assert until("a ready host", lambda: ready_again(versions)) == ["failed", "starting", "ready"]
    verdict = versions.judged(versions.up)
    verdict.check()
    assert versions_asked(verdict.answers).isdisjoint({"broken:1", "missing:1"})


def ready_again(versions: Versions) -> list[str] | None:
    """The states of the host of slow-sum after its first ready report, once it is ready for a second time."""
    said = [one for one in versions.client.read(versions.catalogue.hosts) if one.key == b"slow-sum:1/host.slow-sum.1.0"]
    states = [one.content["state"] if one.value else "gone" for one in said]
    after = states[states.index("ready") + 1 :] if "ready" in states else []
    return after if after and after[-1] == "ready" else None
