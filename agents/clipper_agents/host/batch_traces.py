"""Spans of rows of sampled queries in a host, or in a router with a colocated model.

For a batch without a sampled row no clock is read.
"""

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind

from clipper_agents.host.predictor import TimedOutcome
from clipper_agents.host.request_rows import RowSpan

if TYPE_CHECKING:
    from clipper_agents.observability.span_exporter import SpanRecorder, WorkerSpan


class BatchTraces:
    """Records the spans of rows of sampled queries in one model's batches; nothing without a recorder.

    The topic is that of the model's requests, empty in a router.
    """

    def __init__(self, recorder: "SpanRecorder | None" = None, ref: str = "", topic: str = "") -> None:
        self._recorder, self._ref, self.is_on = recorder, ref, recorder is not None
        self._name, self._kind = (f"process {topic}", SpanKind.CONSUMER) if topic else ("model", SpanKind.INTERNAL)

    def ran(self, rows: Sequence[RowSpan], timed: TimedOutcome, taken_at_s: float) -> None:
        """Record a batch whose outputs were handed on just now, taken at a time by `time.monotonic`."""
        spans = self._begun(rows)
        if not spans:
            return
        now_ns, now_s, outcome = time.time_ns(), time.monotonic(), timed.outcome
        taken_ns = now_ns - round((now_s - taken_at_s) * 1e9)
        began_ns = now_ns - round((now_s - timed.began_s) * 1e9) if timed.began_s else taken_ns
        batch: dict[str, Any] = {"clipper.batch.rows": len(outcome.outputs)}
        if outcome.failed:
            batch["clipper.rows.failed"] = len(outcome.failed)
        if outcome.error is not None:
            batch["error.type"] = type(outcome.error).__name__
        for span in spans:
            span.add_event("batch", at_ns=taken_ns)
            span.add_event("model", at_ns=began_ns)
            span.add_event("outputs", at_ns=began_ns + round(timed.latency_s * 1e9))
            span.end(batch, now_ns)

    def late(self, rows: Iterable[RowSpan]) -> None:
        """Record rows that were dropped past their deadlines, before a batch."""
        for span in self._begun(rows):
            span.end({"error.type": "late"})

    def _begun(self, rows: Iterable[RowSpan]) -> "list[WorkerSpan]":
        """Return a span for each sampled query, since its rows began to wait."""
        if self._recorder is None:
            return []
        spans = list["WorkerSpan"]()
        for request, start, stop in rows:
            for query in request.traced:
                count, since_ns = min(stop, query.stop) - max(start, query.start), round(request.admitted_s * 1e9)
                if count > 0:
                    about = {"clipper.model": self._ref, "clipper.rows": count}
                    spans.append(self._recorder.begin(self._name, self._kind, query.parent, about, since_ns))
        return spans


UNTRACED = BatchTraces()
"""Where nothing is recorded."""
