"""Spans of the rows of sampled queries in a host, or in a router's colocated model.

    process requests ------------- one a batch, of a trace of its own, with links to all rows that are sampled
      queue --> batch ------> send outputs         in each sampled query's trace
                  model

Rules of this file:
- Spans are made when a batch is done, from times that are known then; a batch without a sampled row reads no clock.
- Where nothing is recorded, the context that came with a row goes on with its output.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from secrets import token_hex
from typing import Any, NamedTuple

from clipper_agents.host.batching import Batch
from clipper_agents.host.outputs import Reply, RowSpan
from clipper_agents.host.predictor import TimedOutcome
from clipper_agents.observability.tracing import CONSUMER, INTERNAL, PRODUCER, Span, SpanSink, new_span_id
from clipper_topics.trace_context import (
    TracedRows,
    record_attributes,
    trace_and_span,
    traced_rows_header,
    traceparent_of,
)


class SentRows(NamedTuple):
    """Outputs of sampled rows on their way, as a record by its index among those sent together."""

    record: int
    rows: TracedRows
    span_id: str
    began_ns: int


class BatchTraces:
    """Makes the spans of one model's batches.

    Args:
        sink: Takes the spans; None: there are none.
        ref: The model.
        topic: Where its requests are; empty in a router.

    Attributes:
        is_on: Whether there are spans.
    """

    def __init__(self, sink: SpanSink | None = None, ref: str = "", topic: str = "") -> None:
        self._sink, self._ref, self._topic, self.is_on = sink, ref, topic, sink is not None

    def ran(self, batch: Batch[Any], timed: TimedOutcome, taken_at_s: float) -> None:
        """Make the spans of a batch whose outputs were handed on just now, taken at a time by `time.monotonic`."""
        traced = [*_traced(batch.runs)]
        if not traced:
            return
        now_ns, now_s = time.time_ns(), time.monotonic()
        taken_ns = now_ns - round((now_s - taken_at_s) * 1e9)
        began_ns = now_ns - round((now_s - timed.began_s) * 1e9) if timed.began_s else taken_ns
        of_model = {"clipper.model": self._ref, "clipper.batch.rows": len(batch.inputs)}
        failed, error = len(timed.outcome.failed), timed.outcome.error
        trace_id, span_id = self._batch(batch, [rows for _, rows in traced], (taken_ns, now_ns), of_model)
        for run, rows in traced:
            own_trace, parent = trace_and_span(rows.traceparent)
            admitted_ns = min(round(run.frame.admitted_s * 1e9), taken_ns)
            own_id, links = new_span_id(), ((trace_id, span_id),)
            own = {**of_model, "clipper.rows": _common(run, rows)}
            self._put("queue", own_trace, parent, (admitted_ns, taken_ns), {"clipper.model": self._ref})
            self._put("batch", own_trace, parent, (taken_ns, now_ns), own, own_id, links)
            model = {**of_model, "clipper.rows.failed": failed}
            ended_ns, kind = began_ns + round(timed.latency_s * 1e9), "" if error is None else type(error).__name__
            self._put("model", own_trace, own_id, (began_ns, ended_ns), model, error=kind)

    def late(self, replies: Iterable[Reply[Any]]) -> None:
        """Make the spans of rows that were dropped past their deadlines, before a batch."""
        for run, rows in _traced(run for reply in replies for run in reply.runs) if self.is_on else ():
            trace_id, parent = trace_and_span(rows.traceparent)
            times = round(run.frame.admitted_s * 1e9), time.time_ns()
            self._put("queue", trace_id, parent, times, {"clipper.model": self._ref}, error="late")

    def sending(self, run: RowSpan[Any], record: int, sent: list[SentRows]) -> list[tuple[str, bytes]]:
        """Return the headers of the record with a run's outputs, and add the sampled rows in it to `sent`."""
        traced = [rows for _, rows in _traced([run])]
        if self.is_on:
            began_ns = time.time_ns()
            sent += (SentRows(record, rows, new_span_id(), began_ns) for rows in traced)
            traced = [one.rows._replace(traceparent=_within(one)) for one in sent if one.record == record]
        return traced_rows_header(traced) if traced else []

    def sent(self, topic: str, partition: int, offsets: Sequence[int], sent: Iterable[SentRows]) -> None:
        """Make the spans of outputs that Kafka has now, at these offsets."""
        now_ns = time.time_ns()
        for one in sent:
            trace_id, parent = trace_and_span(one.rows.traceparent)
            attributes = record_attributes("send", "send", topic, partition, offsets[one.record])
            self._give(Span(f"send {topic}", PRODUCER, trace_id, one.span_id, parent, one.began_ns, now_ns, attributes))

    def _batch(
        self, batch: Batch[Any], traced: Sequence[TracedRows], times_ns: tuple[int, int], of_model: dict[str, Any]
    ) -> tuple[str, str]:
        """Make the span of the batch itself, and return its context."""
        trace_id, span_id = token_hex(16), new_span_id()
        name, attributes, frames = "process", of_model, len({id(run.frame) for run in batch.runs})
        if self._topic:
            name = f"process {self._topic}"
            attributes = {**of_model, **record_attributes("process", "process", self._topic)}
            attributes["messaging.batch.message_count"] = frames
        links = [trace_and_span(rows.traceparent) for rows in traced]
        kind = CONSUMER if self._topic else INTERNAL
        self._give(Span(name, kind, trace_id, span_id, "", *times_ns, attributes, links))
        return trace_id, span_id

    def _put(
        self, name: str, trace_id: str, parent: str, times_ns: tuple[int, int], attributes: dict[str, Any],
        span_id: str = "", links: Sequence[tuple[str, str]] = (), error: str = "",
    ) -> None:  # fmt: skip
        self._give(Span(name, INTERNAL, trace_id, span_id, parent, *times_ns, attributes, links, error))

    def _give(self, span: Span) -> None:
        if self._sink is not None:
            self._sink.put(span)


def _traced(runs: Iterable[RowSpan[Any]]) -> Iterator[tuple[RowSpan[Any], TracedRows]]:
    """Yield the rows of sampled queries in these runs, each with its run."""
    for run in runs:
        for rows in run.frame.request.traced:
            if _common(run, rows) > 0:
                yield run, rows


def _common(run: RowSpan[Any], rows: TracedRows) -> int:
    return min(run.stop, rows.stop) - max(run.start, rows.start)


def _within(sent: SentRows) -> str:
    return traceparent_of(trace_and_span(sent.rows.traceparent)[0], sent.span_id)


UNTRACED = BatchTraces()
"""Where nothing is recorded."""
