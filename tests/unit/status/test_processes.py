"""Does whoever looks on see the restarts of hosts, and the metrics of several workers taken together?"""

import asyncio
import socket

import pytest
from builders.metrics import served

from clipper_agents.observability.exposition import Scrape
from clipper_agents.observability.metrics import HostMetrics
from clipper_agents.settings import HostSection, RouterSection, Settings
from clipper_agents.status.host_watch import MOST_READ, HostWatch
from clipper_agents.status.model import WorkerMetrics
from clipper_agents.status.processes import configured_addresses, read_metrics, workers_of
from clipper_topics.host_report import HostReport, State
from clipper_topics.manifests import ModelManifest


def host(limit: float, fast: float, all_of_them: float) -> Scrape:
    name = "clipper_batch_latency_seconds"
    counts = {"0.01": fast, "0.02": all_of_them, "+Inf": all_of_them}
    svm = {("model", "svm"), ("version", "1")}
    return Scrape(
        {("clipper_batch_limit_rows", frozenset(svm)): limit, (f"{name}_count", frozenset(svm)): all_of_them}
        | {(f"{name}_bucket", frozenset({*svm, ("le", upto)})): count for upto, count in counts.items()}
    )


def test_a_versions_limit_is_its_hosts_largest_and_its_latency_of_all_batches() -> None:
    found = workers_of([host(64.0, 10.0, 10.0), host(32.0, 0.0, 10.0)])
    assert found.batch_limits == {"svm:1": 64.0}
    latency = found.batches["svm:1"]
    assert (latency.p50_ms, latency.p99_ms) == (pytest.approx(10.0), pytest.approx(19.8))
    idle = workers_of([host(64.0, 0.0, 0.0)])
    assert (idle.batch_limits, idle.batches) == ({"svm:1": 64.0}, {}), "it ran no batch"


def test_ports_are_those_that_the_workers_of_this_configuration_have() -> None:
    settings = Settings(
        router=RouterSection(metrics_port=9100, processes=2, metrics_address="0.0.0.0"),
        host=HostSection(metrics_port=9200),
        models=[
            ModelManifest(name="a", uri="x:a", replicas=2),
            ModelManifest(name="b", uri="x:b", colocated=True),
            ModelManifest(name="c", uri="x:c", retired=True),
        ],
    )
    assert configured_addresses(settings) == ["127.0.0.1:9100", "127.0.0.1:9101", "127.0.0.1:9200", "127.0.0.1:9201"]
    assert configured_addresses(Settings()) == []


async def test_a_worker_that_answers_is_read_and_many_that_do_not_are_left_out_at_once() -> None:
    """One after another, the time would be over before the one that answers has its turn."""
    metrics = HostMetrics()
    metrics.families.gauge("clipper_batch_limit_rows", "svm", "1").set(48)
    answering = f"127.0.0.1:{served(metrics)}"
    with socket.socket() as silent, socket.socket() as closed:
        for one in (silent, closed):
            one.bind(("127.0.0.1", 0))
        silent.listen(200)  # connections are taken, and never answered; to the other one none is taken
        closed_port, silent_port = closed.getsockname()[1], silent.getsockname()[1]
        addresses = [f"127.0.0.1:{'0' * zeros}{silent_port}" for zeros in range(50)]
        found = await read_metrics([f"127.0.0.1:{closed_port}", *addresses, "nonsense", answering])
    assert found == WorkerMetrics(batch_limits={"svm:1": 48.0})


Told = tuple[State, int | None, int]
"""State, pid and time of a report."""


def reported(told: Told, instance: str = "h0", model: str = "svm:1", metrics: str | None = None) -> HostReport:
    state, pid, at_ms = told
    return HostReport(model=model, instance=instance, state=state, pid=pid, at_ms=at_ms, metrics=metrics)


def restarts(*told: Told) -> int:
    """How many are counted of one host that says so, one after another."""
    watch, reports = HostWatch(), {}
    for one in told:
        reports.pop(b"other", None)
        reports = {b"key": reported(one), b"other": reported(("ready", 9, 9), "h1", "nn:1")}
        watch.see(dict(sorted(reports.items(), key=lambda item: item[0] == b"key")))
    return watch.restarts["svm:1"]


LIVES: dict[str, tuple[int, tuple[Told, ...]]] = {
    "one life": (0, (("starting", 7, 1), ("ready", 7, 2), ("draining", 7, 3))),
    "a failure": (0, (("starting", 7, 1), ("ready", 7, 2), ("failed", 7, 3), ("failed", None, 4))),
    "another pid": (1, (("ready", 7, 1), ("ready", 8, 2))),
    "a start that was seen": (1, (("ready", 7, 1), ("starting", 8, 2), ("ready", 8, 3))),
    "the same pid in a container": (2, (("ready", 1, 1), ("starting", 1, 2), ("ready", 1, 3), ("ready", 1, 4))),
    "a loop of crashes": (3, tuple(("starting", pid, pid) for pid in (1, 2, 3, 4))),
    "a start after a supervisor": (1, (("ready", 7, 1), ("failed", None, 2), ("starting", 8, 3), ("ready", 8, 4))),
}


@pytest.mark.parametrize(("expected", "told"), LIVES.values(), ids=LIVES)
def test_each_further_life_of_a_host_is_a_restart(expected: int, told: tuple[Told, ...]) -> None:
    assert restarts(*told) == expected


def test_a_host_that_left_and_came_back_has_begun_anew() -> None:
    watch = HostWatch()
    for reports in ({b"key": reported(("ready", 7, 1))}, {}, {b"key": reported(("starting", 8, 2))}):
        watch.see(reports)
    assert watch.restarts["svm:1"] == 1


def address(name: str) -> str:
    """Where a host of the first version of this name serves its metrics: a batch limit of 64 rows."""
    metrics = HostMetrics()
    metrics.families.gauge("clipper_batch_limit_rows", name, "1").set(64)
    return f"127.0.0.1:{served(metrics)}"


def test_metrics_are_those_of_the_hosts_that_answer() -> None:
    reports = [
        reported(("ready", 1, 1), metrics=address("svm")),
        reported(("ready", 2, 1), "h1", metrics="127.0.0.1:1"),
        reported(("ready", 3, 1), "h2", "nn:1", metrics="nonsense"),
        reported(("ready", 3, 1), "h2", "nn:2", metrics="127.0.0.1:99999"),
        reported(("ready", 3, 1), "h2", "nn:3", metrics="127.0.0.1\n:80"),
        reported(("ready", 4, 1), "h3", "knn:1"),
    ]
    watch = HostWatch()
    asyncio.run(watch.read(reports))
    assert watch.workers.batch_limits == {"svm:1": 64.0}
    asyncio.run(watch.read(reports[1:]))
    assert watch.workers.batch_limits == {}, "a host that answers no more has no metrics"


def test_of_many_hosts_some_are_read_at_a_time_those_that_are_looked_at_first() -> None:
    names = [f"m{number}" for number in range(2 * MOST_READ + 1)]
    reports = [reported(("ready", 1, 1), "h", f"{name}:1", address(name)) for name in names]
    watch, last, found = HostWatch(), f"{names[-1]}:1", []
    for _ in range(3):
        asyncio.run(watch.read(reports, {last}))
        found.append(len(watch.workers.batch_limits))
        assert last in watch.workers.batch_limits
    assert found == [MOST_READ, 2 * MOST_READ - 1, 2 * MOST_READ + 1]
