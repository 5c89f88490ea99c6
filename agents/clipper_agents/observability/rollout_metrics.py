"""What the steward counts. The names and their meaning are in `specs`."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry

from clipper_agents.observability.families import MetricFamilies

_EVIDENCE = {
    "clipper_comparison_feedbacks": "feedbacks",
    "clipper_comparison_difference": "difference",
    "clipper_comparison_difference_lower": "lower",
    "clipper_comparison_difference_upper": "upper",
    "clipper_comparison_loss": "loss",
    "clipper_comparison_loss_lower": "loss_lower",
    "clipper_comparison_loss_upper": "loss_upper",
}


class ComparedVersion(Protocol):
    """One version of an application in a comparison; see `clipper_agents.rollout.Comparison`."""

    @property
    def application(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def stage(self) -> str: ...


class StewardMetrics:
    """Metrics of a steward process.

    >>> metrics = StewardMetrics()
    >>> metrics.count_decision("digits", "promote", "made")
    >>> labels = {"application": "digits", "command": "promote", "outcome": "made"}
    >>> metrics.registry.get_sample_value("clipper_decisions_total", labels)
    1.0
    """

    def __init__(self) -> None:
        self.families = MetricFamilies("steward")
        self._shown: set[tuple[str, str, str, str]] = set()
        self._dropped: dict[str, int] = {}
        self._lagging: set[tuple[str, str]] = set()

    @property
    def registry(self) -> CollectorRegistry:
        """What is scraped."""
        return self.families.registry

    def set_comparisons(self, comparisons: Iterable[ComparedVersion]) -> None:
        """How all versions stand now; one that is not named has left."""
        shown = set()
        for one in comparisons:
            labels = one.application, one.model, one.stage
            for name, attribute in _EVIDENCE.items():
                value = getattr(one, attribute)
                if value is not None:
                    self.families.gauge(name, *labels).set(value)
                    shown.add((name, *labels))
        for name, *gone in self._shown - shown:
            self.families.forget_gauge(name, *gone)
        self._shown = shown

    def count_decision(self, application: str, command: str, outcome: str) -> None:
        """A rule asked for a change; outcome is `made` or `stale`."""
        self.families.counter("clipper_decisions_total", application, command, outcome).inc()

    def count_drift(self, application: str, model: str, *, worse: bool) -> None:
        """The loss of a version has changed."""
        self.families.counter("clipper_drifts_total", application, model, "up" if worse else "down").inc()

    def count_drift_refused(self, application: str) -> None:
        """Drift is declared, and is not watched."""
        self.families.counter("clipper_drift_refused_total", application).inc()

    def set_dropped(self, dropped: Mapping[str, int]) -> None:
        """So many were dropped of the present reading, by reason; a new reading counts from 0."""
        for reason, count in dropped.items():
            before = self._dropped.get(reason, 0)
            self.families.counter("clipper_comparison_dropped_total", reason).inc(max(0, count - before))
        self._dropped = dict(dropped)

    def set_remembered(self, queries: int) -> None:
        """Set the number of queries that are kept for their feedback."""
        self.families.gauge("clipper_comparison_queries").set(queries)

    def set_consumer_lag(self, lags: Mapping[tuple[str, int], int]) -> None:
        """Unread records of all partitions that are read now, by (topic, partition)."""
        now = {(topic, str(partition)): records for (topic, partition), records in lags.items()}
        for gone in self._lagging - now.keys():
            self.families.forget_gauge("clipper_consumer_lag", *gone)
        for labels, records in now.items():
            self.families.gauge("clipper_consumer_lag", *labels).set(records)
        self._lagging = set(now)

    def set_broker_reachable(self, reachable: bool) -> None:
        """Whether a broker has answered within the last seconds."""
        self.families.gauge("clipper_broker_reachable").set(reachable)
