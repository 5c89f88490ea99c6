"""Are the metrics of several workers taken together rightly?"""

import asyncio
import socket
import time

import pytest
from builders.metrics import served

from clipper_agents.observability.exposition import Labels, Scrape
from clipper_agents.observability.metrics import HostMetrics
from clipper_agents.settings import HostSection, RouterSection, Settings
from clipper_agents.status.model import WorkerMetrics
from clipper_agents.status.processes import ANSWER_S, configured_addresses, read_metrics, workers_of
from clipper_topics.manifests import ModelManifest


def host(limit: float, fast: float, all_of_them: float) -> Scrape:
    svm = {("model", "svm"), ("version", "1")}

    def labels(*more: tuple[str, str]) -> Labels:
        return frozenset(svm | set(more))

    name = "clipper_batch_latency_seconds"
    return Scrape(
        {
            ("clipper_batch_limit_rows", labels()): limit,
            (f"{name}_bucket", labels(("le", "0.01"))): fast,
            (f"{name}_bucket", labels(("le", "0.02"))): all_of_them,
            (f"{name}_bucket", labels(("le", "+Inf"))): all_of_them,
            (f"{name}_count", labels()): all_of_them,
        }
    )


def test_a_versions_limit_is_its_hosts_largest_and_its_latency_of_all_batches() -> None:
    found = workers_of([host(64.0, 10.0, 10.0), host(32.0, 0.0, 10.0)])
    assert found.batch_limits == {"svm:1": 64.0}
    assert found.batches["svm:1"].p50_ms == pytest.approx(10.0)
    assert found.batches["svm:1"].p99_ms == pytest.approx(19.8)
    assert found.batches["svm:1"].source == "metrics"
    assert found.answers == {}


def test_a_version_that_ran_no_batch_has_a_limit_and_no_latency() -> None:
    found = workers_of([host(64.0, 0.0, 0.0)])
    assert (found.batch_limits, found.batches) == ({"svm:1": 64.0}, {})


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


def test_a_worker_that_answers_is_read_and_one_that_does_not_is_left_out() -> None:
    metrics = HostMetrics()
    metrics.families.gauge("clipper_batch_limit_rows", "svm", "1").set(48)
    port = served(metrics)
    with socket.socket() as reserved:  # bound and not listening: nobody answers there
        reserved.bind(("127.0.0.1", 0))
        silent = reserved.getsockname()[1]
        found = asyncio.run(read_metrics([f"127.0.0.1:{silent}", f"127.0.0.1:{port}", "nonsense"]))
    assert found == WorkerMetrics(batch_limits={"svm:1": 48.0})


async def test_many_addresses_at_which_nobody_answers_are_waited_for_at_once() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(200)  # connections are taken, and never answered
        port = silent.getsockname()[1]
        began_s = time.monotonic()
        addresses = [f"127.0.0.1:{'0' * zeros}{port}" for zeros in range(50)]
        assert await read_metrics(addresses) == WorkerMetrics()
        assert time.monotonic() - began_s < 2 * ANSWER_S
