"""What routers and hosts count, a call a batch. The names and their meaning are in `specs`."""

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry

from clipper_agents.observability.families import MetricFamilies


class RouterMetrics:
    """Metrics of one router process.

    >>> metrics = RouterMetrics()
    >>> metrics.observe_predictions("digits", "default", "late", [0.1, 0.1])
    >>> labels = {"application": "digits", "outcome": "default", "reason": "late"}
    >>> metrics.registry.get_sample_value("clipper_predictions_total", labels)
    2.0

    Attributes:
        families: Shared with a `HostMetrics` when the process runs colocated models.
    """

    def __init__(self) -> None:
        self.families = MetricFamilies("router", "host")
        self._weighted: dict[str, set[str]] = {}
        self._hosted: set[str] = set()
        self._lagging: set[tuple[str, str]] = set()

    @property
    def registry(self) -> CollectorRegistry:
        """What is scraped."""
        return self.families.registry

    def count_queries(self, application: str, count: int = 1) -> None:
        """Count queries that were read."""
        self.families.counter("clipper_queries_total", application).inc(count)

    def observe_predictions(
        self, application: str, outcome: str, reason: str | None, latencies_s: Sequence[float]
    ) -> None:
        """Count predictions of one outcome, and observe their latencies.

        Args:
            application: Name of a registered application; one name for all that are not, lest a typo adds a series.
            outcome: `model` or `default`.
            reason: Why a default, one of `clipper_topics.prediction.REASONS`; None for `model`.
            latencies_s: Latency of each, in seconds.
        """
        self.families.counter("clipper_predictions_total", application, outcome, reason or "").inc(len(latencies_s))
        self.families.histogram("clipper_prediction_latency_seconds", application, outcome).observe_many(latencies_s)

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

    def set_selection_weights(self, application: str, weights: Mapping[str, float]) -> None:
        """The weights of all candidates of an application now; a model that is not named has left."""
        for model in self._weighted.get(application, set()) - weights.keys():
            self.families.forget_gauge("clipper_selection_weight", application, model)
        for model, weight in weights.items():
            self.families.gauge("clipper_selection_weight", application, model).set(weight)
        self._weighted[application] = set(weights)

    def count_rebalances(self, rebalances: int) -> None:
        """The group was rebalanced so many times more."""
        self.families.counter("clipper_rebalances_total").inc(rebalances)

    def set_ready_hosts(self, hosts: Mapping[str, int]) -> None:
        """So many hosts of each model (`name:version`) are ready; a model that is not named has left."""
        for model in self._hosted - hosts.keys():
            self.families.forget_gauge("clipper_ready_hosts", model)
        for model, count in hosts.items():
            self.families.gauge("clipper_ready_hosts", model).set(count)
        self._hosted = set(hosts)

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

    def set_consumer_lag(self, lags: Mapping[tuple[str, int], int]) -> None:
        """Unread records of all partitions that the process reads now, by (topic, partition)."""
        self._lagging = _set_lags(self.families, self._lagging, lags)

    def set_broker_reachable(self, reachable: bool) -> None:
        """Whether a broker has answered within the last seconds."""
        self.families.gauge("clipper_broker_reachable").set(reachable)

    def count_dead_letters(self, topic: str, reason: str, count: int = 1) -> None:
        """So many records of the topic went to the dead letters; the reason is one of a few words, not a message."""
        self.families.counter("clipper_dead_letters_total", topic, reason).inc(count)


class HostMetrics:
    """Metrics of the batches of model versions: of one host process, or of colocated models.

    >>> metrics = HostMetrics()
    >>> metrics.observe_batch("svm", "1", rows=8, latency_s=0.004)
    >>> metrics.registry.get_sample_value("clipper_batch_rows_sum", {"model": "svm", "version": "1"})
    8.0

    Args:
        families: Of the router that runs the models; None in a host process.
    """

    def __init__(self, families: MetricFamilies | None = None) -> None:
        self.families = families or MetricFamilies("host")
        self._lagging: set[tuple[str, str]] = set()

    @property
    def registry(self) -> CollectorRegistry:
        """What is scraped."""
        return self.families.registry

    def observe_batch(self, model: str, version: str, *, rows: int, latency_s: float) -> None:
        """A batch of so many rows ran so long."""
        self.families.histogram("clipper_batch_rows", model, version).observe(rows)
        self.families.histogram("clipper_batch_latency_seconds", model, version).observe(latency_s)

    def count_rows(self, model: str, version: str, *, ok: int = 0, late: int = 0, error: int = 0) -> None:
        """So many rows have an output, were dropped past their deadline, or failed."""
        for outcome, rows in (("ok", ok), ("late", late), ("error", error)):
            if rows:
                self.families.counter("clipper_rows_total", model, version, outcome).inc(rows)

    def set_batch_limit(self, model: str, version: str, rows: int) -> None:
        """The limit allows so many rows a batch."""
        self.families.gauge("clipper_batch_limit_rows", model, version).set(rows)

    def set_queued_rows(self, model: str, version: str, rows: int) -> None:
        """So many rows wait for a batch."""
        self.families.gauge("clipper_queued_rows", model, version).set(rows)

    def set_consumer_lag(self, lags: Mapping[tuple[str, int], int]) -> None:
        """Unread records of all partitions that the process reads now, by (topic, partition)."""
        self._lagging = _set_lags(self.families, self._lagging, lags)

    def set_broker_reachable(self, reachable: bool) -> None:
        """Whether a broker has answered within the last seconds."""
        self.families.gauge("clipper_broker_reachable").set(reachable)

    def count_dead_letters(self, topic: str, reason: str, count: int = 1) -> None:
        """So many records of the topic went to the dead letters; the reason is one of a few words, not a message."""
        self.families.counter("clipper_dead_letters_total", topic, reason).inc(count)


def _set_lags(
    families: MetricFamilies, before: set[tuple[str, str]], lags: Mapping[tuple[str, int], int]
) -> set[tuple[str, str]]:
    now = {(topic, str(partition)): records for (topic, partition), records in lags.items()}
    for gone in before - now.keys():
        families.forget_gauge("clipper_consumer_lag", *gone)
    for labels, records in now.items():
        families.gauge("clipper_consumer_lag", *labels).set(records)
    return set(now)


class BatchMetrics:
    """Records the batches of one model version; the engine's observer.

    Args:
        metrics: Of the process.
        model: Name of the model.
        version: Its version.

    >>> metrics = HostMetrics()
    >>> BatchMetrics(metrics, "svm", "1").late(2)
    >>> labels = {"model": "svm", "version": "1", "outcome": "late"}
    >>> metrics.registry.get_sample_value("clipper_rows_total", labels)
    2.0
    """

    def __init__(self, metrics: HostMetrics, model: str, version: str) -> None:
        self._metrics = metrics
        self._model = model
        self._version = version

    def batch(self, *, rows: int, failed: int, latency_s: float, limit_rows: int) -> None:
        """Observe a batch."""
        self._metrics.observe_batch(self._model, self._version, rows=rows, latency_s=latency_s)
        self._metrics.count_rows(self._model, self._version, ok=rows - failed, error=failed)
        self._metrics.set_batch_limit(self._model, self._version, limit_rows)

    def late(self, rows: int) -> None:
        """Count rows that were dropped past their deadlines."""
        self._metrics.count_rows(self._model, self._version, late=rows)

    def queued(self, rows: int) -> None:
        """Set the number of rows that wait for a batch."""
        self._metrics.set_queued_rows(self._model, self._version, rows)
