"""What a router notes of sampled queries on their way: which they are, and when what was done with them.

Rules of this file:
- A trace is part of its query or of its block, and is forgotten with it: nobody looks for sampled queries among others.
- A clock is read only for a chunk, a record or a round with a sampled query in it.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import count
from typing import Any, NamedTuple, TypeAlias

from aiokafka import ConsumerRecord

from clipper_agents.feedback.feedback_step import Step
from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.observability.tracing import SpanSink, new_span_id
from clipper_agents.router import query_spans
from clipper_agents.router.outgoing_records import Sendable
from clipper_stream.query import BlockAnswers, QueryAnswer, QueryBlock, Request
from clipper_topics.codec import Headers
from clipper_topics.trace_context import TracedRows, sampled, traced_rows_header

TRACE_END = 35
"""Where the trace ends in a `traceparent`."""
Record: TypeAlias = ConsumerRecord[Any, Any]
TracedFeedback: TypeAlias = tuple[list[tuple[Record, str]], int]
"""Records with the context of each, and when their turn came, in nanoseconds since the epoch."""


class QueryTrace:
    """The trace of one query: its record, the context that came with it, and when what was done.

    Attributes:
        span_id: Of the span in which all is that is done for the query here.
        is_recorded: Whether its prediction is in the log.
        began_ns, decoded_ns, decided_ns, answered_ns: Nanoseconds since the epoch, each at first the one before.
    """

    __slots__ = ("answered_ns", "began_ns", "decided_ns", "decoded_ns", "is_recorded", "parent", "record", "span_id")

    def __init__(self, record: Record, parent: str) -> None:
        self.record, self.parent, self.span_id, self.is_recorded = record, parent, new_span_id(), False
        self.began_ns = self.decoded_ns = self.decided_ns = self.answered_ns = time.time_ns()


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
        return TracedRows(self.start, self.stop, f"{self.trace.parent[:TRACE_END]}-{span_id}-01")


def traced_parts(request: Request) -> list[TracedPart]:
    """Return the parts of a request that are of sampled queries; the rows of one query, or one block, are together."""
    assert request.asked is not None
    owners, slots, found = request.asked.owners, request.asked.slots, list[TracedPart]()
    for owner in {*owners}:
        if isinstance(owner, QueryBlock):
            traces = owner.queries.traces
            if traces:
                start = owners.index(owner)
                places = dict(zip(slots[start : start + owners.count(owner)], count(start)))
                for index, trace in traces.items():
                    rows = [places[slot] for slot in owner.slots_of(index) if slot in places]
                    found += (TracedPart(row, row + 1, trace, True, new_span_id()) for row in rows)
        elif owner.query.trace is not None:
            start, is_served = owners.index(owner), owner.audit_of is None
            part = TracedPart(start, start + owners.count(owner), owner.query.trace, is_served, new_span_id())
            found.append(part)
    return found


def rows_in_process(request: Request) -> tuple[TracedRows, ...]:
    """Return the rows of sampled queries in a request to a model in this process."""
    return tuple(part.rows(part.trace.span_id) for part in request.traced)


class QueryTraces:
    """Notes what becomes of sampled queries, and has spans made of it.

    Args:
        sink: Takes what was noted; None: nothing is recorded, whatever is sampled.
        metrics: Are told of sampled queries, as the examples of their latencies.

    Attributes:
        sink: As given.
        is_on: Whether anything is recorded.
        undecided: Traces that were begun since the last decisions.
    """

    def __init__(self, sink: SpanSink | None = None, metrics: RouterMetrics | None = None) -> None:
        self.sink, self._metrics, self.is_on = sink, metrics, sink is not None
        self.undecided: list[QueryTrace] = []

    # --- queries ----------------------------------------------------------------------------------------------------
    def begin(self, record: Record, headers: Headers) -> QueryTrace | None:
        """Begin the trace of a query; None where its headers do not say that it is sampled."""
        parent = sampled(headers)
        if parent is None:
            return None
        trace = QueryTrace(record, parent)
        self.undecided.append(trace)
        return trace

    def refuse(self, trace: QueryTrace | None) -> None:
        """End the trace, where there is one, of a record that holds no query."""
        if trace is not None:
            self.drop([trace], "undecodable")

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
        traces = [one.pending.query.trace for one in answers if one.pending.query.trace is not None]
        for some in blocks:
            traces += [trace for index, trace in some.block.queries.traces.items() if index in some.indices]
        now_ns = time.time_ns() if traces else 0
        for trace in traces:
            trace.answered_ns = now_ns

    def recorded(self, topic: str, outgoing: Iterable[Sendable], offsets: Sequence[int]) -> None:
        """Make the spans of sampled queries whose predictions are in the log, at these offsets."""
        if found := _traced(outgoing, offsets):
            for trace, _, _, _ in found:
                trace.is_recorded = True
            self._put(query_spans.of_predictions, topic, found, time.time_ns(), self._metrics)

    def audited(self, topic: str, outgoing: Iterable[Sendable], offsets: Sequence[int], took_s: float) -> None:
        """Make the spans of sampled queries whose audits are in the log, in a round of so many seconds."""
        if found := _traced(outgoing, offsets):
            self._put(query_spans.of_audits, topic, found, time.time_ns(), took_s)

    def drop(self, traces: Iterable[QueryTrace], why: str = "partition_taken") -> None:
        """End those of the traces whose query has no prediction, because its partition was taken away."""
        for trace in traces:
            if not trace.is_recorded:
                self._put(query_spans.of_dropped, trace, time.time_ns(), why)

    # --- requests, outputs, feedback --------------------------------------------------------------------------------
    def sending(self, request: Request, topic: str) -> tuple[list[tuple[str, bytes]], Callable[[Any], None]]:
        """Return the headers of a request with traced rows, and what to call with its future once Kafka has it."""
        rows = (part.rows(part.span_id) for part in request.traced)
        return traced_rows_header(rows), partial(self._sent, request, topic)

    def _sent(self, request: Request, topic: str, sent: Any) -> None:
        self._put(query_spans.of_request, topic, request.ref, len(request.rows), request.traced, sent, time.time_ns())

    def gathered(self, records: Sequence[Record], began_ns: int) -> None:
        """Make the spans of records with outputs of sampled queries that were gathered from a moment until now."""
        if records:
            self._put(query_spans.of_outputs, records, began_ns, time.time_ns())

    def begin_feedback(self, records: Iterable[Record]) -> TracedFeedback | None:
        """Return those of the records that are sampled, None where none is."""
        found = [(record, parent) for record in records if record.headers and (parent := sampled(record.headers))]
        return (found, time.time_ns()) if found else None

    def learned(self, feedback: TracedFeedback, step: Step, forwarded: Collection[int]) -> None:
        """Make the spans of sampled feedback that was learned from in a step, or forwarded, by its offset."""
        self._put(query_spans.of_feedback, *feedback, time.time_ns(), step, forwarded)

    def _put(self, make: Callable[..., Any], *noted: Any) -> None:
        if self.sink is not None:
            self.sink.put(make, *noted)


def _traced(outgoing: Iterable[Sendable], offsets: Sequence[int]) -> list[tuple[QueryTrace, Sendable, int, int]]:
    """Return each trace, the records that its query's is among, its place there, and its offset."""
    found, at = [], 0
    for one in outgoing:
        found += [(trace, one, place, offsets[at + place]) for place, trace in one.traces]
        at += one.size
    return found


UNTRACED = QueryTraces()
"""Where nothing is recorded."""
