"""Metrics of processes: on a port, as a process serves them; and of every role, with each of them counted."""

from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from clipper_agents.observability.metrics import (
    BatchMetrics,
    GatewayMetrics,
    HostMetrics,
    ProcessMetrics,
    RouterMetrics,
    StewardMetrics,
    SupervisorMetrics,
)
from clipper_agents.observability.probes import ProbeServer
from clipper_topics.comparison import Comparison


def served(metrics: ProcessMetrics | SupervisorMetrics) -> int:
    """Serve metrics and probes until the tests end, and return the port."""
    return ProbeServer(metrics.registry, metrics.health).start()


def everything_counted(router: RouterMetrics | None = None) -> dict[str, CollectorRegistry]:
    """The registries by role, with a value in each metric."""
    router = router or RouterMetrics()
    router.count_queries("a")
    router.observe_predictions("a", "default", "late", [0.1])
    router.set_objectives({"a": 0.1})
    router.observe_stages([0.001], [0.01], 0.002)
    router.observe_return(0.001)
    router.observe_combine(0.001)
    router.set_deferred(2)
    router.count_cache("m:1", lookups=2, hits=1)
    router.set_cache_bytes(10)
    router.count_coalesced(1)
    router.count_feedback("applied")
    router.set_selection_weights({("a", "m:1"): 1.0})
    router.set_ready_hosts({"m:1": 1})
    router.count_refused_manifest()
    router.count_rebalances(2)
    router.set_in_flight(3)
    router.set_clock_skew(0.0)
    host = HostMetrics()
    for each in (host, HostMetrics(router.families)):
        each.observe_request(0.001)
        each.watch_disk(Path(__file__).parent)
        each.set_broker_reachable(True)
        each.set_consumer_lag({("q", 0): 4})
        each.count_dead_letters("q", "undecodable")
        batches = BatchMetrics(each, "m", "1")
        batches.batch(rows=8, failed=1, raised=True, waited_s=0.002, latency_s=0.004, took_s=0.2, limit_rows=10)
        batches.late(1)
        batches.queued(2)
    steward = StewardMetrics()
    steward.set_comparisons([compared()])
    steward.count_decision("a", "step", "made")
    steward.count_drift("a", "m:1", worse=True)
    steward.count_drift_refused("a")
    steward.set_dropped({"full": 2})
    steward.set_remembered(7)
    gateway = GatewayMetrics()
    gateway.count_request("/v2/models/{name}/infer", 200, "a", 0.01)
    gateway.watch_in_flight(lambda: 1)
    supervisor = SupervisorMetrics()
    supervisor.watch_children("router", lambda: 2, lambda: 1)
    supervisor.count_restart("router")
    workers = {"router": router, "host": host, "steward": steward, "gateway": gateway}
    return {role: metrics.registry for role, metrics in workers.items()} | {"supervisor": supervisor.registry}


def compared(**fields: Any) -> Comparison:
    """How a version stands in a comparison."""
    usual = {"difference": 0.1, "lower": -0.2, "upper": 0.3, "loss": 0.2, "loss_lower": 0.1, "loss_upper": 0.4}
    return Comparison(application="a", model="m:1", stage="shadow", feedbacks=9, **{**usual, **fields})
