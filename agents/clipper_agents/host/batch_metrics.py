"""The engine's observer that counts in the process's metrics."""

from clipper_agents.observability.metrics import HostMetrics


class BatchMeter:
    """Counts the batches of one model version.

    Args:
        metrics: Of the process.
        model: Name of the model.
        version: Its version.

    >>> metrics = HostMetrics()
    >>> BatchMeter(metrics, "svm", "1").late(2)
    >>> labels = {"model": "svm", "version": "1", "outcome": "late"}
    >>> metrics.registry.get_sample_value("clipper_rows_total", labels)
    2.0
    """

    def __init__(self, metrics: HostMetrics, model: str, version: str) -> None:
        self._metrics = metrics
        self._model = model
        self._version = version

    def batch(self, *, rows: int, failed: int, latency_s: float, limit_rows: int) -> None:
        """A batch ran."""
        self._metrics.observe_batch(self._model, self._version, rows=rows, latency_s=latency_s)
        self._metrics.count_rows(self._model, self._version, ok=rows - failed, error=failed)
        self._metrics.set_batch_limit(self._model, self._version, limit_rows)

    def late(self, rows: int) -> None:
        """Rows were dropped, past their deadlines."""
        self._metrics.count_rows(self._model, self._version, late=rows)

    def queued(self, rows: int) -> None:
        """Rows wait for a batch."""
        self._metrics.set_queued_rows(self._model, self._version, rows)
