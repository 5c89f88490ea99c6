"""What each kind of process counts, a call a batch. The names and their meaning are in `specs`."""

import math
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from clipper_agents.observability.families import MetricFamilies
from clipper_agents.observability.probes import ProcessHealth

WANT_OF_TIME = frozenset({"late", "arrived_late", "overloaded"})
"""Reasons of defaults that miss an application's latency objective."""


class ProcessMetrics:
    """What every worker process counts.

    Attributes:
        families: A router shares them with a `HostMetrics` when it runs colocated models.
        health: What probes are told.
    """

    def __init__(self, families: MetricFamilies) -> None:
        self.families = families
        self.health = ProcessHealth()
        families.gauge("clipper_broker_reachable").set(1)  # until it is known better: a model may be loaded first

    @property
    def registry(self) -> CollectorRegistry:
        """What is scraped."""
        return self.families.registry

    def set_consumer_lag(self, lags: Mapping[tuple[str, int], int]) -> None:
        """Unread records of all partitions that the process reads now, by (topic, partition)."""
        unread = {(topic, str(partition)): records for (topic, partition), records in lags.items()}
        self.families.set_gauges("clipper_consumer_lag", unread)

    def set_broker_reachable(self, reachable: bool) -> None:
        """Whether a broker has answered within the last seconds."""
        self.families.gauge("clipper_broker_reachable").set(reachable)
        self.health.is_broker_reachable = reachable

    def keep_models(self, names: Iterable[str]) -> None:
        """End the series of models (`name:version`) that are not among the names."""
        self.families.forget_others("model", names)

    def keep_applications(self, names: Iterable[str]) -> None:
        """End the series of applications that are not among the names."""
        self.families.forget_others("application", names)

    def shown_applications(self, names: Collection[str]) -> Collection[str]:
        """Return of which of the applications gauges are shown."""
        return self.families.shown("application", names)

    def watch_disk(self, folder: Path) -> None:
        """Have each scrape look how much the data folder takes on its disk, and how much is free there."""
        self.families.gauge("clipper_disk_used_bytes", str(folder)).set_function(lambda: used_bytes(folder))
        self.families.gauge("clipper_disk_free_bytes", str(folder)).set_function(lambda: free_bytes(folder))

    def count_dead_letters(self, topic: str, reason: str, count: int = 1) -> None:
        """So many records of the topic went to the dead letters; the reason is one of a few words, not a message."""
        self.families.counter("clipper_dead_letters_total", topic, reason).inc(count)


class RouterMetrics(ProcessMetrics):
    """Metrics of one router process."""

    def __init__(self) -> None:
        super().__init__(MetricFamilies("router", "host"))

    def count_queries(self, application: str, count: int = 1) -> None:
        """Count queries that were read."""
        self.families.counter("clipper_queries_total", application).inc(count)

    def observe_predictions(
        self,
        application: str,
        outcome: str,
        reason: str | None,
        latencies_s: Sequence[float],
        objective_s: float | None = None,
    ) -> None:
        """Count predictions of one outcome, `model`, or `default` for a reason, and observe their latencies.

        All applications that are not registered have one name, lest a typo adds a series.
        """
        missed = len(latencies_s) if reason in WANT_OF_TIME else 0
        if reason is None and objective_s is not None and max(latencies_s, default=0.0) > objective_s:
            missed = sum(latency_s > objective_s for latency_s in latencies_s)
        if missed:
            self.families.counter("clipper_objective_missed_total", application).inc(missed)
        self.families.counter("clipper_predictions_total", application, outcome, reason or "").inc(len(latencies_s))
        self.families.histogram("clipper_prediction_latency_seconds", application, outcome).observe_many(latencies_s)

    def keep_trace(self, application: str, outcome: str, latency_s: float, trace_id: str) -> None:
        """Keep the trace of a prediction, which is observed with all others, as the exemplar of its latency."""
        series = self.families.histogram("clipper_prediction_latency_seconds", application, outcome)
        series.keep_trace(latency_s, trace_id)

    def set_objectives(self, objectives_s: Mapping[str, float | None]) -> None:
        """Set the latency objectives of all applications; one that is not named has left."""
        known = {(application,): bound_s for application, bound_s in objectives_s.items() if bound_s is not None}
        self.families.set_gauges("clipper_objective_seconds", known)

    def observe_return(self, took_s: float) -> None:
        """Outputs were on their way from a host for so long."""
        self.families.histogram("clipper_stage_latency_seconds", "return").observe(took_s)

    def observe_combine(self, took_s: float) -> None:
        """A chunk of outputs was combined to answers, and these handed on, in so long."""
        self.families.histogram("clipper_stage_latency_seconds", "combine").observe(took_s)

    def observe_stages(self, waits_s: Sequence[float], models_s: Sequence[float], record_s: float) -> None:
        """Observe the stages of a round of answers, which were recorded together."""
        series = self.families.histogram
        series("clipper_stage_latency_seconds", "wait").observe_many(waits_s)
        series("clipper_stage_latency_seconds", "models").observe_many(models_s)
        series("clipper_stage_latency_seconds", "record").observe(record_s, len(waits_s))

    def count_cache(self, model: str, lookups: int, hits: int) -> None:
        """Rows of a model (`name:version`) were looked up, and so many of them found."""
        self.families.counter("clipper_cache_lookups_total", model).inc(lookups)
        self.families.counter("clipper_cache_hits_total", model).inc(hits)

    def set_cache_bytes(self, size_bytes: int) -> None:
        """The caches of all partitions of the process hold so many bytes."""
        self.families.gauge("clipper_cache_bytes").set(size_bytes)

    def set_clock_skew(self, ahead_s: float) -> None:
        """Set the seconds by which this process's clock is ahead of the broker's."""
        self.families.gauge("clipper_clock_skew_seconds").set(ahead_s)

    def count_coalesced(self, rows: int) -> None:
        """So many rows joined an identical row in flight."""
        self.families.counter("clipper_coalesced_total").inc(rows)

    def count_feedback(self, outcome: str, count: int = 1) -> None:
        """So many feedbacks ended as `applied`, `duplicate`, `orphan`, `forwarded`, `invalid` or `unlearned`."""
        self.families.counter("clipper_feedback_total", outcome).inc(count)

    def set_selection_weights(self, weights: Mapping[tuple[str, str], float]) -> None:
        """The weights of all candidates now, by (application, model); one that is not named has left."""
        self.families.set_gauges("clipper_selection_weight", weights)

    def count_rebalances(self, rebalances: int) -> None:
        """The group was rebalanced so many times more."""
        self.families.counter("clipper_rebalances_total").inc(rebalances)

    def set_ready_hosts(self, hosts: Mapping[str, int]) -> None:
        """So many hosts of each model (`name:version`) are ready; a model that is not named has left."""
        self.families.set_gauges("clipper_ready_hosts", {(model,): count for model, count in hosts.items()})

    def forget_model(self, model: str) -> None:
        """The model (`name:version`) has left this process: its series end."""
        name, _, version = model.partition(":")
        self.families.forget(model=model)
        self.families.forget(model=name, version=version)

    def count_refused_manifest(self) -> None:
        """A record of the control topic was refused."""
        self.families.counter("clipper_manifests_refused_total").inc()

    def set_in_flight(self, queries: int) -> None:
        """Set the number of queries in flight."""
        self.families.gauge("clipper_in_flight").set(queries)

    def set_deferred(self, queries: int) -> None:
        """Set the number of queries that wait in the log for room."""
        self.families.gauge("clipper_deferred_queries").set(queries)


class HostMetrics(ProcessMetrics):
    """Metrics of a host process, or of a router's colocated models, whose `families` then are the router's."""

    def __init__(self, families: MetricFamilies | None = None) -> None:
        super().__init__(families or MetricFamilies("host"))

    def observe_request(self, took_s: float) -> None:
        """Requests were on their way from a router for so long."""
        self.families.histogram("clipper_stage_latency_seconds", "request").observe(took_s)


class SupervisorMetrics:
    """Metrics of a process that keeps others running.

    Attributes:
        health: What probes are told.
    """

    def __init__(self) -> None:
        self._families = MetricFamilies("supervisor")
        self.health = ProcessHealth()

    @property
    def registry(self) -> CollectorRegistry:
        """What is scraped."""
        return self._families.registry

    def count_restart(self, role: str) -> None:
        """A process is started again."""
        self._families.counter("clipper_restarts_total", role).inc()

    def watch_children(self, role: str, wanted: Callable[[], int], ready: Callable[[], int]) -> None:
        """Have each scrape ask how many processes of a role should run, and how many of them serve."""
        self._families.counter("clipper_restarts_total", role)
        self._families.gauge("clipper_children_wanted", role).set_function(wanted)
        self._families.gauge("clipper_children_ready", role).set_function(ready)


class BatchMetrics:
    """Records the batches of one model version.

    >>> metrics = HostMetrics()
    >>> BatchMetrics(metrics, "svm", "1").late(2)
    >>> labels = {"model": "svm", "version": "1", "outcome": "late"}
    >>> metrics.registry.get_sample_value("clipper_rows_total", labels)
    2.0
    """

    def __init__(self, metrics: HostMetrics, model: str, version: str) -> None:
        self._families, self._labels = metrics.families, (model, version)

    def batch(
        self, *, rows: int, failed: int, raised: bool, waited_s: float, latency_s: float, took_s: float, limit_rows: int
    ) -> None:
        """A batch waited and ran so long, of whose rows or calls some failed, and the limit now allows so many rows."""
        for stage, spent_s in (("queue", waited_s), ("batch", took_s), ("model", latency_s)):
            self._families.histogram("clipper_stage_latency_seconds", stage).observe(spent_s)
        self._families.histogram("clipper_batch_wait_seconds", *self._labels).observe(waited_s)
        self._families.histogram("clipper_batch_rows", *self._labels).observe(rows)
        self._families.histogram("clipper_batch_latency_seconds", *self._labels).observe(latency_s)
        self._count_rows("ok", rows - failed)
        self._count_rows("error", failed)
        self._families.counter("clipper_failed_batches_total", *self._labels).inc(raised)
        self._families.gauge("clipper_batch_limit_rows", *self._labels).set(limit_rows)

    def late(self, rows: int) -> None:
        """Count rows that were dropped past their deadlines."""
        self._count_rows("late", rows)

    def queued(self, rows: int) -> None:
        """Set the number of rows that wait for a batch."""
        self._families.gauge("clipper_queued_rows", *self._labels).set(rows)

    def _count_rows(self, outcome: str, rows: int) -> None:
        if rows:
            self._families.counter("clipper_rows_total", *self._labels, outcome).inc(rows)


_EVIDENCE = {
    "clipper_comparison_feedbacks": "feedbacks",
    "clipper_comparison_difference": "difference",
    "clipper_comparison_difference_lower": "lower",
    "clipper_comparison_difference_upper": "upper",
    "clipper_comparison_loss": "loss",
    "clipper_comparison_loss_lower": "loss_lower",
    "clipper_comparison_loss_upper": "loss_upper",
}
"""Metrics of a version in a comparison, and the attributes of `clipper_agents.rollout.Comparison`; one may be None."""


class StewardMetrics(ProcessMetrics):
    """Metrics of a steward process."""

    def __init__(self) -> None:
        super().__init__(MetricFamilies("steward"))
        self._dropped: dict[str, int] = {}

    def set_comparisons(self, comparisons: Iterable[Any]) -> None:
        """How all versions stand now; one that is not named has left."""
        found = {(one.application, one.model, one.stage): one for one in comparisons}
        for name, attribute in _EVIDENCE.items():
            known = {labels: value for labels, one in found.items() if (value := getattr(one, attribute)) is not None}
            self.families.set_gauges(name, known)

    def count_decision(self, application: str, command: str, outcome: str) -> None:
        """A rule asked for a change; outcome is `made`, `stale` or `refused`."""
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


class GatewayMetrics(ProcessMetrics):
    """Metrics of a gateway process."""

    def __init__(self) -> None:
        super().__init__(MetricFamilies("gateway"))

    def count_request(self, route: str, status: int, application: str, took_s: float) -> None:
        """A request to a route (its pattern, not its path) was answered after so long.

        The application is empty unless it is registered, lest a caller adds series by names that it invents.
        """
        self.families.counter("clipper_gateway_requests_total", route, str(status), application).inc()
        self.families.histogram("clipper_gateway_request_seconds", route).observe(took_s)

    def watch_in_flight(self, calls: Callable[[], int]) -> None:
        """Have each scrape ask how many calls wait for an answer."""
        self.families.gauge("clipper_gateway_in_flight").set_function(calls)


def used_bytes(folder: Path) -> float:
    """Bytes that the files below a folder take; what is deleted meanwhile takes none."""
    found = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                found += os.lstat(os.path.join(where, name)).st_blocks * 512  # noqa: PTH118 (hundreds, at each scrape)
    return found


def free_bytes(folder: Path) -> float:
    """Bytes that may still be written there, unknown where the folder cannot be looked at."""
    with suppress(OSError):
        return shutil.disk_usage(folder).free
    return math.nan
