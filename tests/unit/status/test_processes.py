"""Are the metrics of several hosts taken together, and those left out that do not answer?"""

import socket

import pytest
from builders.metrics import served

from clipper_agents.observability.exposition import Scrape
from clipper_agents.observability.metrics import ProcessMetrics
from clipper_agents.status.processes import ServedMetrics, metrics_of, read_metrics


def host(limit: float, fast: float, all_of_them: float) -> Scrape:
    name = "clipper_batch_latency_seconds"
    counts = {"0.01": fast, "0.02": all_of_them, "+Inf": all_of_them}
    svm = {("model", "svm"), ("version", "1")}
    return Scrape(
        {("clipper_batch_limit_rows", frozenset(svm)): limit, (f"{name}_count", frozenset(svm)): all_of_them}
        | {(f"{name}_bucket", frozenset({*svm, ("le", upto)})): count for upto, count in counts.items()}
    )


def test_a_versions_limit_is_its_hosts_largest_and_its_latency_of_all_batches() -> None:
    found = metrics_of([host(64.0, 10.0, 10.0), host(32.0, 0.0, 10.0)])
    assert found.batch_limits == {"svm:1": 64.0}
    latency = found.batches["svm:1"]
    assert (latency.p50_ms, latency.p99_ms) == (pytest.approx(10.0), pytest.approx(19.8))
    idle = metrics_of([host(64.0, 0.0, 0.0)])
    assert (idle.batch_limits, idle.batches) == ({"svm:1": 64.0}, {}), "it ran no batch"


NONSENSE = ("nonsense", "127.0.0.1:99999", "127.0.0.1\n:80")


async def test_a_worker_that_answers_is_read_and_many_that_do_not_are_left_out_at_once() -> None:
    """One after another, the time would be over before the one that answers has its turn."""
    metrics = ProcessMetrics("host")
    metrics.gauge("clipper_batch_limit_rows", "svm", "1").set(48)
    answering = f"127.0.0.1:{served(metrics)}"
    with socket.socket() as silent, socket.socket() as closed:
        for one in (silent, closed):
            one.bind(("127.0.0.1", 0))
        silent.listen(200)  # connections are taken, and never answered; to the other one none is taken
        closed_port, silent_port = closed.getsockname()[1], silent.getsockname()[1]
        addresses = [f"127.0.0.1:{'0' * zeros}{silent_port}" for zeros in range(50)]
        found = await read_metrics([f"127.0.0.1:{closed_port}", *addresses, *NONSENSE, answering])
    assert found == ServedMetrics(batch_limits={"svm:1": 48.0})
