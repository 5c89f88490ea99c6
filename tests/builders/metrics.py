"""Metrics of a process on a port, as a process serves them."""

from clipper_agents.observability.metrics import ProcessMetrics
from clipper_agents.observability.probes import ProbeServer


def served(metrics: ProcessMetrics) -> int:
    return ProbeServer(metrics.registry, metrics.health).start()
