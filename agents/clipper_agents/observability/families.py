"""The metric families of one process, made from their specs."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

from clipper_agents.observability.histogram import BatchHistogram, HistogramSeries
from clipper_agents.observability.specs import BOUNDED, MOST_NAMES, OTHERS, SPECS, MetricSpec

# a `_created` series beside every counter would double what is scraped, and nobody reads it
disable_created_metrics()  # type: ignore[no-untyped-call]


_UNSEEN = Gauge("unseen", "In no registry.", registry=None)
LabelValues = TypeVar("LabelValues", bound=tuple[str, ...])


class MetricFamilies:
    """A registry of its own with the metrics of the given roles; series are looked up once and kept.

    Of a label in `BOUNDED`, the first `most` values that something is counted for have series of their own until they
    are forgotten; what is counted for others goes to the series of `OTHERS`, so that sums are right. An empty value is
    none.

    >>> families = MetricFamilies("router", most=1)
    >>> families.counter("clipper_queries_total", "digits").inc(3)
    >>> families.counter("clipper_queries_total", "sums").inc()
    >>> for name in ("digits", OTHERS):
    ...     families.registry.get_sample_value("clipper_queries_total", {"application": name})
    3.0
    1.0

    Args:
        roles: Whose metrics; those of `both` belong to all but the supervisor.
        most: Values of a bounded label that have series of their own.

    Attributes:
        registry: What is scraped.
    """

    def __init__(self, *roles: str, most: int = MOST_NAMES) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        wanted = {*roles} if "supervisor" in roles else {*roles, "both"}
        self._specs = {spec.name: spec for spec in SPECS if spec.role in wanted}
        self._families = {name: self._family(spec) for name, spec in self._specs.items()}
        self._series: dict[str, dict[tuple[str, ...], Any]] = {name: {} for name in self._families}
        self._most = most
        self._own: dict[str, set[str]] = {label: set() for label in BOUNDED}
        self._by_value: dict[str, dict[str, set[tuple[str, tuple[str, ...]]]]] = {label: {} for label in BOUNDED}
        """Series of all families by bounded label and value."""

    def counter(self, name: str, *labels: str) -> Counter:
        """The counter with these label values."""
        found: Counter = self._found(name, labels)
        return found

    def gauge(self, name: str, *labels: str) -> Gauge:
        """The gauge with these label values; nobody sees one of `OTHERS`, which would be of several at once."""
        found: Gauge = self._found(name, labels)
        return found

    def histogram(self, name: str, *labels: str) -> HistogramSeries:
        """The histogram with these label values."""
        found: HistogramSeries = self._found(name, labels)
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

    def forget(self, **values: str) -> None:
        """Take back every series of any family that has these label values, the first one of a bounded label.

        >>> families = MetricFamilies("router")
        >>> families.counter("clipper_cache_hits_total", "svm:2").inc()
        >>> families.forget(model="svm:2")
        >>> families.registry.get_sample_value("clipper_cache_hits_total", {"model": "svm:2"}) is None
        True
        """
        label, value = next(iter(values.items()))
        for name, labels in list(self._by_value[label].get(value, ())):
            if values.items() <= dict(zip(self._specs[name].labels, labels, strict=True)).items():
                self._take_back(name, labels)

    def forget_others(self, label: str, names: Iterable[str]) -> None:
        """Take back the series of all values of a bounded label that are not among the names."""
        for value in self._own[label].difference(names):
            self.forget(**{label: value})

    def _found(self, name: str, labels: tuple[str, ...]) -> Any:
        found = self._series[name].get(labels)
        if found is not None:
            return found
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
            family = self._families[name]
            series[labels] = family.labels(*labels) if labels else family
            for label, value in self._bounded(name, labels):
                self._by_value[label].setdefault(value, set()).add((name, labels))
        return series[labels]

    def _take_back(self, name: str, labels: tuple[str, ...]) -> None:
        del self._series[name][labels]
        self._families[name].remove(*labels)
        for label, value in self._bounded(name, labels):
            left = self._by_value[label][value]
            left.remove((name, labels))
            if not left:
                del self._by_value[label][value]
            if all(self._specs[other].kind == "gauge" for other, _ in left):
                self._own[label].discard(value)

    def _bounded(self, name: str, labels: tuple[str, ...]) -> list[tuple[str, str]]:
        return [pair for pair in zip(self._specs[name].labels, labels, strict=True) if pair[0] in BOUNDED]

    def _family(self, spec: MetricSpec) -> Any:
        if spec.kind == "histogram":
            family = BatchHistogram(spec.name, spec.text, spec.labels, spec.buckets)
            self.registry.register(family)
            return family
        return {"counter": Counter, "gauge": Gauge}[spec.kind](
            spec.name, spec.text, spec.labels, registry=self.registry
        )
