"""The metric families of one process, made from their specs."""

from collections.abc import Mapping
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

from clipper_agents.observability.histogram import BatchHistogram, HistogramSeries
from clipper_agents.observability.specs import SPECS, MetricSpec

# a `_created` series beside every counter would double what is scraped, and nobody reads it
disable_created_metrics()  # type: ignore[no-untyped-call]


LabelValues = TypeVar("LabelValues", bound=tuple[str, ...])


class _Series(dict[tuple[str, ...], Any]):
    """The series of a family by their label values, each made when it is asked for first."""

    def __init__(self, family: Any) -> None:
        super().__init__()
        self._family = family

    def __missing__(self, labels: tuple[str, ...]) -> Any:
        made = self[labels] = self._family.labels(*labels) if labels else self._family
        return made


class MetricFamilies:
    """A registry of its own with the metrics of the given roles; series are looked up once and kept.

    >>> families = MetricFamilies("router")
    >>> families.counter("clipper_queries_total", "digits").inc(3)
    >>> families.registry.get_sample_value("clipper_queries_total", {"application": "digits"})
    3.0

    Attributes:
        registry: What is scraped.
    """

    def __init__(self, *roles: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._specs = {spec.name: spec for spec in SPECS if spec.role in {*roles, "both"}}
        self._families = {name: self._family(spec) for name, spec in self._specs.items()}
        self._series = {name: _Series(family) for name, family in self._families.items()}

    def counter(self, name: str, *labels: str) -> Counter:
        """The counter with these label values."""
        found: Counter = self._series[name][labels]
        return found

    def gauge(self, name: str, *labels: str) -> Gauge:
        """The gauge with these label values."""
        found: Gauge = self._series[name][labels]
        return found

    def histogram(self, name: str, *labels: str) -> HistogramSeries:
        """The histogram with these label values."""
        found: HistogramSeries = self._series[name][labels]
        return found

    def set_gauges(self, name: str, values: Mapping[LabelValues, float], *within: str) -> None:
        """Set the gauges with these label values, and take back the others whose first label values are `within`."""
        for labels in [one for one in self._series[name] if one[: len(within)] == within and one not in values]:
            self._take_back(name, labels)
        for labels, value in values.items():
            self.gauge(name, *labels).set(value)

    def forget(self, **values: str) -> None:
        """Take back every series of any family that has these label values.

        >>> families = MetricFamilies("router")
        >>> families.counter("clipper_cache_hits_total", "svm:2").inc()
        >>> families.forget(model="svm:2")
        >>> families.registry.get_sample_value("clipper_cache_hits_total", {"model": "svm:2"}) is None
        True
        """
        for name, spec in self._specs.items():
            for labels in list(self._series[name]):
                if values.items() <= dict(zip(spec.labels, labels, strict=True)).items():
                    self._take_back(name, labels)

    def _family(self, spec: MetricSpec) -> Any:
        if spec.kind == "histogram":
            family = BatchHistogram(spec.name, spec.text, spec.labels, spec.buckets)
            self.registry.register(family)
            return family
        return {"counter": Counter, "gauge": Gauge}[spec.kind](
            spec.name, spec.text, spec.labels, registry=self.registry
        )

    def _take_back(self, name: str, labels: tuple[str, ...]) -> None:
        del self._series[name][labels]
        self._families[name].remove(*labels)
