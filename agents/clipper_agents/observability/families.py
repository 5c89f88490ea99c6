"""The metric families of one process, made from their specs."""

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

from clipper_agents.observability.histogram import BatchHistogram, HistogramSeries
from clipper_agents.observability.specs import SPECS

# a `_created` series beside every counter would double what is scraped, and nobody reads it
disable_created_metrics()  # type: ignore[no-untyped-call]


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
        self._labels = {spec.name: spec.labels for spec in SPECS if spec.role in {*roles, "both"}}
        specs = [spec for spec in SPECS if spec.name in self._labels]
        self._counter_families = {
            spec.name: Counter(spec.name, spec.text, spec.labels, registry=self.registry)
            for spec in specs
            if spec.kind == "counter"
        }
        self._gauge_families = {
            spec.name: Gauge(spec.name, spec.text, spec.labels, registry=self.registry)
            for spec in specs
            if spec.kind == "gauge"
        }
        self._histogram_families = {
            spec.name: BatchHistogram(spec.name, spec.text, spec.labels, spec.buckets)
            for spec in specs
            if spec.kind == "histogram"
        }
        for family in self._histogram_families.values():
            self.registry.register(family)
        self._counters: dict[tuple[str, ...], Counter] = {}
        self._gauges: dict[tuple[str, ...], Gauge] = {}

    def counter(self, name: str, *labels: str) -> Counter:
        """The counter with these label values."""
        found = self._counters.get((name, *labels))
        if found is None:
            family = self._counter_families[name]
            found = self._counters[name, *labels] = family.labels(*labels) if labels else family
        return found

    def gauge(self, name: str, *labels: str) -> Gauge:
        """The gauge with these label values."""
        found = self._gauges.get((name, *labels))
        if found is None:
            family = self._gauge_families[name]
            found = self._gauges[name, *labels] = family.labels(*labels) if labels else family
        return found

    def forget_gauge(self, name: str, *labels: str) -> None:
        """Take a gauge back, so that a model or partition that left is not scraped for ever."""
        if self._gauges.pop((name, *labels), None) is not None:
            self._gauge_families[name].remove(*labels)

    def forget(self, **values: str) -> None:
        """Take back every series of any family that has these label values.

        >>> families = MetricFamilies("router")
        >>> families.counter("clipper_cache_hits_total", "svm:2").inc()
        >>> families.forget(model="svm:2")
        >>> families.registry.get_sample_value("clipper_cache_hits_total", {"model": "svm:2"}) is None
        True
        """
        for name, series in [*((key[0], key[1:]) for key in (*self._counters, *self._gauges)), *self._of_histograms()]:
            if values.items() <= dict(zip(self._labels[name], series, strict=True)).items():
                self._take_back(name, series)

    def _of_histograms(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(name, series) for name, family in self._histogram_families.items() for series in family.series]

    def _take_back(self, name: str, series: tuple[str, ...]) -> None:
        if name in self._histogram_families:
            self._histogram_families[name].remove(*series)
        elif self._counters.pop((name, *series), None) is not None:
            self._counter_families[name].remove(*series)
        else:
            self.forget_gauge(name, *series)

    def histogram(self, name: str, *labels: str) -> HistogramSeries:
        """The histogram with these label values."""
        return self._histogram_families[name].labels(*labels)
