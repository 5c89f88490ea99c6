"""Metrics of a process on a port, as a process serves them."""

from clipper_agents.observability.metrics import ProcessMetrics, SupervisorMetrics
from clipper_agents.observability.probes import ProbeServer


def served(metrics: ProcessMetrics | SupervisorMetrics) -> int:
    return ProbeServer(metrics.registry, metrics.health).start()
