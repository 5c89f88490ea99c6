"""The metrics of a process: prometheus-client's own objects, made from the table in `specs`."""

import math
import os
import shutil
import time
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.samples import Exemplar

from clipper_agents.observability.probes import ProcessHealth
from clipper_agents.observability.specs import BOUNDED, MOST_NAMES, OTHERS, SPECS, Role

# a `_created` series beside every counter would double what is scraped, and nobody reads it
disable_created_metrics()  # type: ignore[no-untyped-call]

_UNSEEN = Gauge("unseen", "In no registry.", registry=None)
_ARRAY_FROM = 32
"""Below this many values a bisect each (0.3 µs) is cheaper than numpy's fixed cost (about 9 µs)."""
WANT_OF_TIME = frozenset({"late", "arrived_late", "overloaded"})
"""Reasons of defaults that miss an application's latency objective."""
LabelValues = TypeVar("LabelValues", bound=tuple[str, ...])


class BatchHistogram(Histogram):
    """A histogram that takes many values at once: a lock a bucket, not two a value. Its series has one writer."""

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:  # noqa: ARG002
        """Observe a value, without a walk through the buckets; `keep_trace` is for exemplars."""
        self._buckets[bisect_left(self._upper_bounds, amount)].inc(1)
        self._sum.inc(amount)

    def observe_many(self, values: Sequence[float], times: int = 1) -> None:
        """Observe each of these values once or several times; one equal to a bound is in that bound's bucket."""
        if len(values) < _ARRAY_FROM:
            for value in values:
                self._buckets[bisect_left(self._upper_bounds, value)].inc(times)
            self._sum.inc(sum(values) * times)
            return
        array = np.asarray(values, dtype=np.float64)
        for bucket, count in enumerate(np.bincount(np.searchsorted(self._upper_bounds, array)).tolist()):
            if count:
                self._buckets[bucket].inc(count * times)
        self._sum.inc(float(array.sum()) * times)

    def keep_trace(self, value: float, trace_id: str) -> None:
        """Keep the trace (32 hexadecimal digits) of a value that was observed, as the exemplar of its bucket."""
        exemplar = Exemplar({"trace_id": trace_id}, value, time.time())
        self._buckets[bisect_left(self._upper_bounds, value)].set_exemplar(exemplar)


_KINDS = {"counter": Counter, "gauge": Gauge, "histogram": BatchHistogram}


class ProcessMetrics:
    """The metrics of the given roles and, unless it is a supervisor, those of `both`; series are looked up once.

    Of a label in `BOUNDED`, the first `most` values that something is counted for have series of their own until they
    are forgotten; what is counted for others goes to the series of `OTHERS`, so that sums are right. An empty value is
    none.

    >>> metrics = ProcessMetrics("router", most=1)
    >>> metrics.counter("clipper_queries_total", "digits").inc(3)
    >>> metrics.counter("clipper_queries_total", "sums").inc()
    >>> for name in ("digits", OTHERS):
    ...     metrics.registry.get_sample_value("clipper_queries_total", {"application": name})
    3.0
    1.0

    Attributes:
        registry: What is scraped.
        health: What probes are told.
    """

    def __init__(self, *roles: Role, most: int = MOST_NAMES) -> None:
        self.registry, self.health, self._most = CollectorRegistry(), ProcessHealth(), most
        ProcessCollector(registry=self.registry)
        wanted = {*roles} if "supervisor" in roles else {*roles, "both"}
        self._specs = {spec.name: spec for spec in SPECS if spec.role in wanted}
        self._families: dict[str, Any] = {}
        for spec in self._specs.values():
            buckets = {"buckets": spec.buckets} if spec.buckets else {}
            self._families[spec.name] = _KINDS[spec.kind](
                spec.name, spec.text, spec.labels, registry=self.registry, **buckets
            )
        self._series: dict[str, dict[tuple[str, ...], Any]] = {name: {} for name in self._families}
        self._own: dict[str, set[str]] = {label: set() for label in BOUNDED}
        if "both" in wanted:
            self.gauge("clipper_broker_reachable").set(1)  # until it is known better: a model may be loaded first

    def counter(self, name: str, *labels: str) -> Counter:
        found: Counter = self._series[name].get(labels) or self._admitted_series(name, labels)
        return found

    def gauge(self, name: str, *labels: str) -> Gauge:
        """The gauge with these label values; nobody sees one of `OTHERS`, which would be of several at once."""
        found: Gauge = self._series[name].get(labels) or self._admitted_series(name, labels)
        return found

    def histogram(self, name: str, *labels: str) -> BatchHistogram:
        found: BatchHistogram = self._series[name].get(labels) or self._admitted_series(name, labels)
        return found

    def set_gauges(self, name: str, values: Mapping[LabelValues, float]) -> None:
        """Set the gauges with these label values, as far as they are `shown`, and take back all others."""
        for at, label in enumerate(self._specs[name].labels):
            if label in self._own:
                names = self.shown(label, {labels[at] for labels in values})
                values = {labels: value for labels, value in values.items() if labels[at] in names}
        for labels in self._series[name].keys() - values.keys():
            self._take_back(name, labels)
        for labels, value in values.items():
            self._kept(name, labels).set(value)

    def shown(self, label: str, names: Collection[str]) -> Collection[str]:
        """Return of which values of a bounded label gauges are shown: all, or those that something is counted for."""
        return names if len(names) <= self._most else self._own[label].intersection(names)

    def keep(self, label: str, names: Iterable[str]) -> None:
        """Take back the series of all values of a bounded label that are not among the names."""
        if gone := self._own[label].difference(names):
            for name, labels in self._with(label):
                if labels[self._specs[name].labels.index(label)] in gone:
                    self._take_back(name, labels)
            self._own[label] -= gone

    def forget_model(self, model: str) -> None:
        """The model (`name:version`) has left this process: its series end."""
        name, _, version = model.partition(":")
        left: set[str] = set()
        for family, labels in self._with("model"):
            of = dict(zip(self._specs[family].labels, labels, strict=True))
            if of["model"] == model or (of["model"], of.get("version")) == (name, version):
                self._take_back(family, labels)
            elif self._specs[family].kind != "gauge":
                left.add(of["model"])
        self._own["model"] -= {model, name} - left

    def set_consumer_lag(self, lags: Mapping[tuple[str, int], int]) -> None:
        """Unread records of all partitions that the process reads now, by (topic, partition)."""
        unread = {(topic, str(partition)): records for (topic, partition), records in lags.items()}
        self.set_gauges("clipper_consumer_lag", unread)

    def set_broker_reachable(self, reachable: bool) -> None:
        self.gauge("clipper_broker_reachable").set(reachable)
        self.health.is_broker_reachable = reachable

    def watch_disk(self, folder: Path) -> None:
        """Have each scrape look how much the data folder takes on its disk, and how much is free there."""
        self.gauge("clipper_disk_used_bytes", str(folder)).set_function(lambda: used_bytes(folder))
        self.gauge("clipper_disk_free_bytes", str(folder)).set_function(lambda: free_bytes(folder))

    def _admitted_series(self, name: str, labels: tuple[str, ...]) -> Any:
        spec = self._specs[name]
        labels = tuple(map(self._admitted, spec.labels, labels))
        return _UNSEEN if OTHERS in labels and spec.kind == "gauge" else self._kept(name, labels)

    def _admitted(self, label: str, value: str) -> str:
        own = self._own.get(label)
        if own is None or not value or value in own:
            return value
        if len(own) >= self._most:
            return OTHERS
        own.add(value)
        return value

    def _kept(self, name: str, labels: tuple[str, ...]) -> Any:
        series = self._series[name]
        if labels not in series:
            series[labels] = self._families[name].labels(*labels) if labels else self._families[name]
        return series[labels]

    def _with(self, label: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        return (
            (name, labels)
            for name, spec in self._specs.items()
            if label in spec.labels
            for labels in [*self._series[name]]
        )

    def _take_back(self, name: str, labels: tuple[str, ...]) -> None:
        del self._series[name][labels]
        self._families[name].remove(*labels)


class RouterMetrics(ProcessMetrics):
    """Metrics of one router process, and of its colocated models."""

    def __init__(self) -> None:
        super().__init__("router", "host")

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
            self.counter("clipper_objective_missed_total", application).inc(missed)
        self.counter("clipper_predictions_total", application, outcome, reason or "").inc(len(latencies_s))
        self.histogram("clipper_prediction_latency_seconds", application, outcome).observe_many(latencies_s)

    def observe_stages(self, waits_s: Sequence[float], models_s: Sequence[float], record_s: float) -> None:
        """Observe the stages of a round of answers, which were recorded together."""
        self.histogram("clipper_stage_latency_seconds", "wait").observe_many(waits_s)
        self.histogram("clipper_stage_latency_seconds", "models").observe_many(models_s)
        self.histogram("clipper_stage_latency_seconds", "record").observe_many([record_s], len(waits_s))


class BatchMetrics:
    """Records the batches of one model version.

    >>> metrics = ProcessMetrics("host")
    >>> BatchMetrics(metrics, "svm", "1").late(2)
    >>> labels = {"model": "svm", "version": "1", "outcome": "late"}
    >>> metrics.registry.get_sample_value("clipper_rows_total", labels)
    2.0
    """

    def __init__(self, metrics: ProcessMetrics, model: str, version: str) -> None:
        self._metrics, self._labels = metrics, (model, version)

    def batch(
        self, *, rows: int, failed: int, raised: bool, waited_s: float, latency_s: float, took_s: float, limit_rows: int
    ) -> None:
        """A batch waited and ran so long, of whose rows or calls some failed, and the limit now allows so many rows."""
        metrics, labels = self._metrics, self._labels
        for stage, spent_s in (("queue", waited_s), ("batch", took_s), ("model", latency_s)):
            metrics.histogram("clipper_stage_latency_seconds", stage).observe(spent_s)
        metrics.histogram("clipper_batch_wait_seconds", *labels).observe(waited_s)
        metrics.histogram("clipper_batch_rows", *labels).observe(rows)
        metrics.histogram("clipper_batch_latency_seconds", *labels).observe(latency_s)
        self._count_rows("ok", rows - failed)
        self._count_rows("error", failed)
        metrics.counter("clipper_failed_batches_total", *labels).inc(raised)
        metrics.gauge("clipper_batch_limit_rows", *labels).set(limit_rows)

    def late(self, rows: int) -> None:
        self._count_rows("late", rows)

    def queued(self, rows: int) -> None:
        self._metrics.gauge("clipper_queued_rows", *self._labels).set(rows)

    def _count_rows(self, outcome: str, rows: int) -> None:
        if rows:
            self._metrics.counter("clipper_rows_total", *self._labels, outcome).inc(rows)


_EVIDENCE = {
    "clipper_comparison_feedbacks": "feedbacks",
    "clipper_comparison_difference": "difference",
    "clipper_comparison_difference_lower": "lower",
    "clipper_comparison_difference_upper": "upper",
    "clipper_comparison_loss": "loss",
    "clipper_comparison_loss_lower": "loss_lower",
    "clipper_comparison_loss_upper": "loss_upper",
}
"""Metrics of a version in a comparison, and its attributes; one may be None."""


class StewardMetrics(ProcessMetrics):
    """Metrics of a steward process."""

    def __init__(self) -> None:
        super().__init__("steward")
        self._dropped: dict[str, int] = {}

    def set_comparisons(self, comparisons: Iterable[Any]) -> None:
        """How all versions stand now; one that is not named has left."""
        found = {(one.application, one.model, one.stage): one for one in comparisons}
        for name, attribute in _EVIDENCE.items():
            known = {labels: value for labels, one in found.items() if (value := getattr(one, attribute)) is not None}
            self.set_gauges(name, known)

    def set_dropped(self, dropped: Mapping[str, int]) -> None:
        """So many were dropped of the present reading, by reason; a new reading counts from 0."""
        for reason, count in dropped.items():
            more = max(0, count - self._dropped.get(reason, 0))
            self.counter("clipper_comparison_dropped_total", reason).inc(more)
        self._dropped = dict(dropped)


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
