"""The traces of sampled queries in a router: what is noted on their way, and the spans that are made of it at the end.

    process queries -------------------------------------------------------------- of one query
      decode, decide, send requests (to each model), process outputs, combine, record predictions

Rules of this file:
- A trace is part of its query or of its block, and is forgotten with it: nobody looks for sampled queries among others.
- Spans are made of times that were noted, when the query's prediction is in the log.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple, Self, TypeAlias
from weakref import WeakSet

from aiokafka import ConsumerRecord

from clipper_agents.feedback.feedback_step import Step
from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.observability.tracing import CONSUMER, INTERNAL, PRODUCER, Span, SpanSink, new_span_id
from clipper_agents.router.outgoing_records import Sendable
from clipper_agents.router.traced_answers import TracedAnswer, traced_answers
from clipper_stream.query import BlockAnswers, InFlightQuery, QueryAnswer, QueryBlock, Request
from clipper_topics.codec import Headers
from clipper_topics.trace_context import (
    TracedRows,
    read_traced_rows,
    record_attributes,
    sampled,
    trace_and_span,
    traced_rows_header,
    traceparent_of,
)

Record: TypeAlias = ConsumerRecord[Any, Any]
TracedFeedback: TypeAlias = tuple[list[tuple[Record, str]], int]
"""Records with the context of each, and when their turn came, in nanoseconds since the epoch."""


class QueryTrace:
    """The trace of one query: ids, its record, and when what was done, in nanoseconds since the epoch."""

    __slots__ = (
        "__weakref__", "answered_ns", "began_ns", "decided_ns", "decoded_ns", "parent_id", "place", "span_id", "topic",
        "trace_id",
    )  # fmt: skip

    def __init__(self, record: Record, parent: str) -> None:
        self.topic, self.place = record.topic, (record.partition, record.offset)
        self.trace_id, self.parent_id = trace_and_span(parent)
        self.span_id = new_span_id()
        self.began_ns = self.decoded_ns = self.decided_ns = self.answered_ns = time.time_ns()

    def decoded(self) -> Self:
        """Note that the query is decoded."""
        self.decoded_ns = time.time_ns()
        return self

    def within(
        self, name: str, kind: str, start_ns: int, end_ns: int, attributes: dict[str, Any], span_id: str = "",
        error: str = "",
    ) -> Span:  # fmt: skip
        """Make a span of something that was done for the query."""
        return Span(name, kind, self.trace_id, span_id, self.span_id, start_ns, end_ns, attributes, (), error)


class TracedPart(NamedTuple):
    """Rows of a request, from `start` to `stop`, excluded, that are of one sampled query.

    Attributes:
        is_served: Whether they are not asked for the log only.
        span_id: Of the span in which they are sent.
    """

    start: int
    stop: int
    trace: QueryTrace
    is_served: bool
    span_id: str

    def rows(self, span_id: str) -> TracedRows:
        """The rows, as they are named to whom they are given in this span."""
        return TracedRows(self.start, self.stop, traceparent_of(self.trace.trace_id, span_id))


def traced_parts(request: Request) -> Iterator[TracedPart]:
    """Yield the parts of a request that are of sampled queries."""
    assert request.asked is not None
    start, slots = 0, request.asked.slots
    for owner, rows in groupby(request.asked.owners):
        stop = start + len([*rows])
        if isinstance(owner, InFlightQuery):
            if owner.query.trace is not None:
                yield TracedPart(start, stop, owner.query.trace, owner.audit_of is None, new_span_id())
        else:
            for row, trace in _traced_rows(owner, slots, start, stop):
                yield TracedPart(row, row + 1, trace, True, new_span_id())  # noqa: FBT003
        start = stop


def _traced_rows(block: QueryBlock, slots: list[int], start: int, stop: int) -> Iterator[tuple[int, QueryTrace]]:
    for index, trace in block.queries.traces.items():
        for slot in block.slots_of(index):
            with suppress(ValueError):
                yield slots.index(slot, start, stop), trace


def rows_in_process(request: Request) -> tuple[TracedRows, ...]:
    """Return the rows of sampled queries in a request to a model in this process."""
    return tuple(part.rows(part.trace.span_id) for part in request.traced)


class QueryTraces:
    """Notes what becomes of sampled queries, and makes spans of it.

    Args:
        sink: Takes the spans; None: there are none, whatever is sampled.
        metrics: Are told of sampled queries, as the examples of their latencies.

    Attributes:
        sink: As given.
        is_on: Whether there are spans.
        undecided: Traces that were begun since the last decisions.
    """

    def __init__(self, sink: SpanSink | None = None, metrics: RouterMetrics | None = None) -> None:
        self.sink, self._metrics, self.is_on = sink, metrics, sink is not None
        self.undecided: list[QueryTrace] = []
        self._open: WeakSet[QueryTrace] = WeakSet()

    # --- on the way -------------------------------------------------------------------------------------------------
    def begin(self, record: Record, headers: Headers) -> QueryTrace | None:
        """Begin the trace of a query; None where its headers do not say that it is sampled."""
        parent = sampled(headers)
        if parent is None:
            return None
        trace = QueryTrace(record, parent)
        self.undecided.append(trace)
        self._open.add(trace)
        return trace

    def decided(self, requests: Iterable[Request]) -> None:
        """Note that all queries that were begun are decided about, and in which requests their rows are."""
        now_ns = time.time_ns()
        for trace in self.undecided:
            trace.decided_ns = now_ns
        self.undecided.clear()
        for request in requests:
            request.traced.extend(traced_parts(request))

    def answered(self, answers: Iterable[QueryAnswer], blocks: Iterable[BlockAnswers]) -> None:
        """Note that these answers are decided and written down."""
        now_ns = time.time_ns()
        for answer in answers:
            if answer.pending.query.trace is not None:
                answer.pending.query.trace.answered_ns = now_ns
        for some in blocks:
            for index, trace in some.block.queries.traces.items():
                if index in some.indices:
                    trace.answered_ns = now_ns

    def open(self) -> list[QueryTrace]:
        """Return the traces that have not ended."""
        return [*self._open]

    def drop(self, traces: Iterable[QueryTrace]) -> None:
        """End those of the traces that are open: the partitions of their queries were taken away."""
        for trace in self._open.intersection(traces):
            self._end(trace, time.time_ns(), {}, "partition_taken")

    def refuse(self, trace: QueryTrace | None) -> None:
        """End the trace, where there is one, of a record that holds no query."""
        if trace is not None:
            self._end(trace, time.time_ns(), {}, "undecodable")

    # --- requests and outputs ---------------------------------------------------------------------------------------
    def sending(self, request: Request, topic: str) -> tuple[list[tuple[str, bytes]], Callable[[Any], None]]:
        """Return the headers of a request with traced rows, and what to call with its future once Kafka has it."""
        rows = (part.rows(part.span_id) for part in request.traced)
        return traced_rows_header(rows), partial(self._sent, request, topic)

    def _sent(self, request: Request, topic: str, sent: Any) -> None:
        now_ns = time.time_ns()
        is_lost = sent.cancelled() or sent.exception() is not None
        place = () if is_lost else (sent.result().partition, sent.result().offset)
        common = record_attributes("send", "send", topic, *place)
        common |= {"clipper.model": request.ref, "clipper.request.rows": len(request.rows)}
        for part in request.traced:
            attributes = {**common, "clipper.rows": part.stop - part.start, "clipper.served": part.is_served}
            trace, error = part.trace, "not_stored" if is_lost else ""
            self._give(
                trace.within(f"send {topic}", PRODUCER, trace.decided_ns, now_ns, attributes, part.span_id, error)
            )

    def gathered(self, records: Iterable[Record], began_ns: int) -> None:
        """Make the spans of records with outputs of sampled queries that were gathered from a moment until now."""
        for record in records:
            for rows in read_traced_rows(record.headers):
                self._processed(record, rows.traceparent, began_ns, {})

    # --- predictions, audits, feedback ------------------------------------------------------------------------------
    def recorded(self, topic: str, outgoing: Iterable[Sendable], offsets: Sequence[int]) -> None:
        """Make the spans of sampled queries whose predictions are in the log."""
        now_ns = time.time_ns()
        for trace, answer in traced_answers(outgoing, offsets):
            spans = [trace.within("decode", INTERNAL, trace.began_ns, trace.decoded_ns, {})]
            if answer.decision is not None:
                spans.append(trace.within("decide", INTERNAL, trace.decoded_ns, trace.decided_ns, answer.decision))
            if answer.combination is not None:
                start_ns = max(trace.decided_ns, round(answer.decided_at_s * 1e9))
                end_ns = max(start_ns, trace.answered_ns)
                spans.append(trace.within("combine", INTERNAL, start_ns, end_ns, answer.combination))
            stored = record_attributes("record", "send", topic, trace.place[0], answer.offset)
            spans.append(trace.within(f"record {topic}", PRODUCER, trace.answered_ns, now_ns, stored))
            self._end(trace, now_ns, answer.outcome, before=spans)
            if self._metrics is not None and answer.observed is not None:
                self._metrics.keep_trace(*answer.observed, trace.trace_id)

    def audited(self, topic: str, outgoing: Iterable[Sendable], offsets: Sequence[int], took_s: float) -> None:
        """Make the spans of sampled queries whose audits are in the log, in a round of so many seconds."""
        now_ns = time.time_ns()
        for trace, answer in traced_answers(outgoing, offsets):
            stored = record_attributes("record", "send", topic, trace.place[0], answer.offset)
            start_ns = now_ns - round(took_s * 1e9)
            self._give(trace.within(f"record {topic}", PRODUCER, start_ns, now_ns, stored))

    def begin_feedback(self, records: Iterable[Record]) -> TracedFeedback | None:
        """Return those of the records that are sampled, None where none is."""
        found = [(record, parent) for record in records if record.headers and (parent := sampled(record.headers))]
        return (found, time.time_ns()) if found else None

    def learned(self, feedback: TracedFeedback, step: Step, forwarded: Collection[int]) -> None:
        """Make the spans of sampled feedback that was learned from in a step, or forwarded, by its offset."""
        records, began_ns = feedback
        refused = {record.offset: type(error).__name__ for record, error in step.refused}
        used = {*step.applied_feedback.values()}
        for record, parent in records:
            outcome = "forwarded" if record.offset in forwarded else "used" if record.offset in used else "duplicate"
            found = {"clipper.feedback.outcome": refused.get(record.offset, outcome)}
            self._processed(record, parent, began_ns, found)

    # --- spans ------------------------------------------------------------------------------------------------------
    def _end(
        self, trace: QueryTrace, now_ns: int, attributes: dict[str, Any], error: str = "", before: Iterable[Span] = ()
    ) -> None:
        """Make the span that all others of the query are in."""
        self._open.discard(trace)
        attributes |= record_attributes("process", "process", trace.topic, *trace.place)
        name, links = f"process {trace.topic}", ((trace.trace_id, trace.parent_id),)
        ids = trace.trace_id, trace.span_id, trace.parent_id
        self._give(*before, Span(name, CONSUMER, *ids, trace.began_ns, now_ns, attributes, links, error))

    def _processed(self, record: Record, parent: str, began_ns: int, attributes: dict[str, Any]) -> None:
        trace_id, parent_id = trace_and_span(parent)
        attributes |= record_attributes("process", "process", record.topic, record.partition, record.offset)
        name, links, now_ns = f"process {record.topic}", ((trace_id, parent_id),), time.time_ns()
        self._give(Span(name, CONSUMER, trace_id, "", parent_id, began_ns, now_ns, attributes, links))

    def _give(self, *spans: Span) -> None:
        if self.sink is not None:
            self.sink.put(*spans)


UNTRACED = QueryTraces()
"""Where nothing is recorded."""
