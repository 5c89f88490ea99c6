"""Spans of the rows of sampled queries in a host, or in a router's colocated model.

    process requests ------------- one a batch, of a trace of its own, with links to all rows that are sampled
      queue --> batch ------> send outputs         in each sampled query's trace
                  model

Rules of this file:
- What is noted when a batch is done is times that are known then; for a batch without a sampled row no clock is read.
- Where nothing is recorded, the context that came with a row goes on with its output.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from secrets import token_hex
from typing import Any, NamedTuple, TypeAlias

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

TracedRuns: TypeAlias = Sequence[tuple[RowSpan[Any], TracedRows]]
"""The rows of sampled queries in some runs, each with its run."""


class SentRows(NamedTuple):
    """Outputs of sampled rows on their way, in a record by its index among those sent together."""

    record: int
    rows: TracedRows
    span_id: str
    began_ns: int


class BatchTimes(NamedTuple):
    """When a batch was taken, when the model began and ended, and now, in nanoseconds since the epoch."""

    taken: int
    began: int
    ended: int
    now: int


class BatchTraces:
    """Has spans made of one model's batches.

    Args:
        sink: Takes what was noted; None: nothing is recorded.
        ref: The model.
        topic: Where its requests are; empty in a router.

    Attributes:
        is_on: Whether anything is recorded.
    """

    def __init__(self, sink: SpanSink | None = None, ref: str = "", topic: str = "") -> None:
        self._sink, self._ref, self._topic, self.is_on = sink, ref, topic, sink is not None

    def ran(self, batch: Batch[Any], timed: TimedOutcome, taken_at_s: float) -> None:
        """Note a batch whose outputs were handed on just now, taken at a time by `time.monotonic`."""
        if traced := _traced(batch.runs):
            now_ns, now_s = time.time_ns(), time.monotonic()
            taken_ns = now_ns - round((now_s - taken_at_s) * 1e9)
            began_ns = now_ns - round((now_s - timed.began_s) * 1e9) if timed.began_s else taken_ns
            times = BatchTimes(taken_ns, began_ns, began_ns + round(timed.latency_s * 1e9), now_ns)
            frames = len({id(run.frame) for run in batch.runs})
            self._put(_batch_spans, self._ref, self._topic, traced, times, timed, (len(batch.inputs), frames))

    def late(self, replies: Iterable[Reply[Any]]) -> None:
        """Note rows that were dropped past their deadlines, before a batch."""
        if self.is_on and (traced := _traced(run for reply in replies for run in reply.runs)):
            self._put(_late_spans, self._ref, traced, time.time_ns())

    def sending(self, run: RowSpan[Any], record: int, sent: list[SentRows]) -> list[tuple[str, bytes]]:
        """Return the headers of the record with a run's outputs, and add the sampled rows in it to `sent`."""
        traced = [rows for _, rows in _traced([run])]
        if self.is_on and traced:
            now_ns = time.time_ns()
            own = [SentRows(record, rows, new_span_id(), now_ns) for rows in traced]
            traced = [_within(one) for one in own]
            sent += own
        return traced_rows_header(traced) if traced else []

    def sent(self, topic: str, partition: int, offsets: Sequence[int], sent: Sequence[SentRows]) -> None:
        """Note that Kafka has outputs now, at these offsets."""
        self._put(_sent_spans, topic, partition, offsets, sent, time.time_ns())

    def _put(self, make: Any, *noted: Any) -> None:
        if self._sink is not None:
            self._sink.put(make, *noted)


def _traced(runs: Iterable[RowSpan[Any]]) -> TracedRuns:
    return [(run, rows) for run in runs for rows in run.frame.request.traced if _common(run, rows) > 0]


def _common(run: RowSpan[Any], rows: TracedRows) -> int:
    return min(run.stop, rows.stop) - max(run.start, rows.start)


def _within(sent: SentRows) -> TracedRows:
    trace_id, _ = trace_and_span(sent.rows.traceparent)
    return sent.rows._replace(traceparent=traceparent_of(trace_id, sent.span_id))


# --- in the thread ----------------------------------------------------------------------------------------------------
def _batch_spans(
    ref: str, topic: str, traced: TracedRuns, times: BatchTimes, timed: TimedOutcome, size: tuple[int, int]
) -> Iterator[Span]:
    rows, frames = size
    about = {"clipper.model": ref, "clipper.batch.rows": rows}
    whole = trace_id, span_id = token_hex(16), new_span_id()
    links = [trace_and_span(each.traceparent) for _, each in traced]
    kind, name, own = INTERNAL, "process", about
    if topic:
        kind, name, own = CONSUMER, f"process {topic}", {**about, **record_attributes("process", "process", topic)}
        own["messaging.batch.message_count"] = frames
    yield Span(name, kind, trace_id, span_id, "", times.taken, times.now, own, links)
    of_model = {**about, "clipper.rows.failed": len(timed.outcome.failed)}
    error = "" if timed.outcome.error is None else type(timed.outcome.error).__name__
    for run, each in traced:
        trace_id, parent = trace_and_span(each.traceparent)
        batch_id, of_batch = new_span_id(), {**about, "clipper.rows": _common(run, each)}
        yield _queue_span(ref, run, each, times.taken)
        yield Span("batch", INTERNAL, trace_id, batch_id, parent, times.taken, times.now, of_batch, (whole,))
        yield Span("model", INTERNAL, trace_id, "", batch_id, times.began, times.ended, of_model, (), error)


def _late_spans(ref: str, traced: TracedRuns, now_ns: int) -> Iterator[Span]:
    for run, rows in traced:
        yield _queue_span(ref, run, rows, now_ns)._replace(error="late")


def _queue_span(ref: str, run: RowSpan[Any], rows: TracedRows, end_ns: int) -> Span:
    trace_id, parent = trace_and_span(rows.traceparent)
    admitted_ns = min(round(run.frame.admitted_s * 1e9), end_ns)
    return Span("queue", INTERNAL, trace_id, "", parent, admitted_ns, end_ns, {"clipper.model": ref})


def _sent_spans(
    topic: str, partition: int, offsets: Sequence[int], sent: Iterable[SentRows], now_ns: int
) -> Iterator[Span]:
    for one in sent:
        trace_id, parent = trace_and_span(one.rows.traceparent)
        about = record_attributes("send", "send", topic, partition, offsets[one.record])
        yield Span(f"send {topic}", PRODUCER, trace_id, one.span_id, parent, one.began_ns, now_ns, about)


UNTRACED = BatchTraces()
"""Where nothing is recorded."""
