"""Notes of rows of sampled queries in a host, or in a router with a colocated model.

For a batch without a sampled row no clock is read. Where nothing is recorded, the context that came with a row goes on
with its output.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from clipper_agents.host.predictor import TimedOutcome
from clipper_agents.host.request_rows import RowSpan
from clipper_agents.observability.batch_notes import BatchRun, QueuedRows, SentOutputs
from clipper_agents.observability.tracing import TraceSink, new_span_id
from clipper_topics.trace_context import TracedRows, trace_and_span, traced_rows_header, traceparent_of


class SentRows(NamedTuple):
    """Outputs of sampled rows on their way, in a record by its index among those sent together."""

    record: int
    rows: TracedRows
    span_id: str
    began_ns: int


class BatchTraces:
    """Notes what becomes of rows of sampled queries in one model's batches; nothing without a sink.

    The topic is that of the model's requests, empty in a router.
    """

    def __init__(self, sink: TraceSink | None = None, ref: str = "", topic: str = "") -> None:
        self._sink, self._ref, self._topic, self.is_on = sink, ref, topic, sink is not None

    def ran(self, spans: Sequence[RowSpan], timed: TimedOutcome, taken_at_s: float) -> None:
        """Note a batch whose outputs were handed on just now, taken at a time by `time.monotonic`."""
        queued = [*self._queued(spans)]
        if not queued:
            return
        now_ns, now_s, outcome = time.time_ns(), time.monotonic(), timed.outcome
        taken_ns = now_ns - round((now_s - taken_at_s) * 1e9)
        began_ns = now_ns - round((now_s - timed.began_s) * 1e9) if timed.began_s else taken_ns
        for rows in queued:
            rows.ended_ns = taken_ns
        error = "" if outcome.error is None else type(outcome.error).__name__
        size = len(outcome.outputs), len({id(span.request) for span in spans}), len(outcome.failed)
        times = taken_ns, began_ns, began_ns + round(timed.latency_s * 1e9), now_ns
        self._put(BatchRun(self._ref, self._topic, *size, error, *times, queued))

    def late(self, spans: Iterable[RowSpan]) -> None:
        """Note rows that were dropped past their deadlines, before a batch."""
        for rows in self._queued(spans) if self.is_on else ():
            rows.ended_ns, rows.error = time.time_ns(), "late"
            self._put(rows)

    def sending(self, span: RowSpan, record: int, sent: list[SentRows]) -> list[tuple[str, bytes]]:
        """Return the headers of the record with outputs of these rows, and add the sampled ones of them to `sent`."""
        traced = [rows for rows in span.request.traced if _common(span, rows) > 0]
        if self.is_on and traced:
            own = [SentRows(record, rows, new_span_id(), time.time_ns()) for rows in traced]
            sent += own
            traced = [
                outputs.rows._replace(
                    traceparent=traceparent_of(trace_and_span(outputs.rows.traceparent)[0], outputs.span_id)
                )
                for outputs in own
            ]
        return traced_rows_header(traced) if traced else []

    def sent(self, topic: str, partition: int, offsets: Sequence[int], sent: Iterable[SentRows]) -> None:
        """Note that Kafka has outputs now, at these offsets."""
        for outputs in sent:
            times = outputs.began_ns, time.time_ns()
            self._put(
                SentOutputs(
                    outputs.rows.traceparent, outputs.span_id, topic, partition, offsets[outputs.record], *times
                )
            )

    def _queued(self, spans: Iterable[RowSpan]) -> Iterator[QueuedRows]:
        for span in spans:
            for rows in span.request.traced:
                if (count := _common(span, rows)) > 0:
                    yield QueuedRows(self._ref, rows.traceparent, count, round(span.request.admitted_s * 1e9), 0)

    def _put(self, note: msgspec.Struct) -> None:
        if self._sink is not None:
            self._sink.put(note)


def _common(span: RowSpan, rows: TracedRows) -> int:
    return min(span.stop, rows.stop) - max(span.start, rows.start)


UNTRACED = BatchTraces()
"""Where nothing is recorded."""
