"""Notes of sampled queries on their way through a router: which they are, and when what was done with them.

Rules of this file:
- A trace is part of its query or of its block, and is forgotten with it: nobody looks for sampled queries among others.
- A clock is read only for a chunk, a record or a round with a sampled query in it.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import msgspec
from aiokafka import ConsumerRecord

from clipper_agents.feedback.feedback_step import Step
from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.observability.query_notes import (
    AnsweredQuery,
    GatheredOutputs,
    ProcessedRecord,
    RecordedNote,
    SentRequest,
)
from clipper_agents.observability.tracing import TraceSink, new_span_id
from clipper_agents.router.outgoing_records import Outgoing, OutgoingBlock, Sendable
from clipper_stream.query import BlockAnswers, QueryAnswer, QueryBlock, Request
from clipper_stream.query.row_batch import Owner
from clipper_topics.prediction import NAMED
from clipper_topics.trace_context import TracedRows, header_of_rows, sampled_context, traced_rows_header, well_formed

TRACE_END = 35
"""Where the trace ends in a `traceparent`."""
EXAMPLE_EVERY_NS = 100_000_000
"""More examples of latencies than ten a second nobody scrapes."""
Record: TypeAlias = ConsumerRecord[Any, Any]
Traced: TypeAlias = tuple["QueryTrace", Sendable, int, int]
"""A trace, the records that its query's is among, its place there, and its offset."""
TracedFeedback: TypeAlias = tuple[list[tuple[Record, str]], int]
"""Records with the context of each, and when their turn came, in nanoseconds since the epoch."""


class QueryTrace:
    """The trace of one query: where its record is, the context that came with it, and when what was done.

    Attributes:
        place: Topic, partition and offset of the record.
        span_id: Of the span in which all is that is done for the query here.
        is_recorded: Whether its prediction is in the log.
        began_ns, decoded_ns, decided_ns, answered_ns: Nanoseconds since the epoch, each at first the one before.
    """

    __slots__ = ("answered_ns", "began_ns", "decided_ns", "decoded_ns", "is_recorded", "parent", "place", "span_id")

    def __init__(self, record: Record, parent: str) -> None:
        self.place = record.topic, record.partition, record.offset
        self.parent, self.span_id, self.is_recorded = parent, new_span_id(), False
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

    def told(self) -> tuple[str, str, str, int, bool, int]:
        """The rows, as a `SentRequest` has them."""
        trace = self.trace
        return trace.parent, trace.span_id, self.span_id, self.stop - self.start, self.is_served, trace.decided_ns


def traced_parts(request: Request) -> list[TracedPart]:
    """Return the parts of a request that are of sampled queries; the rows of one in no block are together."""
    assert request.asked is not None
    owners, slots, found = request.asked.owners, request.asked.slots, list[TracedPart]()
    for owner in dict.fromkeys(owners):
        if isinstance(owner, QueryBlock):
            for index, trace in owner.queries.traces.items():
                models = owner.decisions[index].models
                if request.ref in models:
                    row = _row_of(owner, models.index(request.ref) * owner.count + index, owners, slots)
                    if row is not None:
                        found.append(TracedPart(row, row + 1, trace, True, new_span_id()))  # noqa: FBT003
        elif owner.query.trace is not None:
            start, is_served = owners.index(owner), owner.audit_of is None
            part = TracedPart(start, start + owners.count(owner), owner.query.trace, is_served, new_span_id())
            found.append(part)
    return found


def _row_of(block: QueryBlock, slot: int, owners: list[Owner], slots: list[int]) -> int | None:
    """Return the row of a block's slot; None where a cache had it, or another query asks for the same."""
    row = -1
    try:
        while True:
            row = slots.index(slot, row + 1)
            if owners[row] is block:
                return row
    except ValueError:
        return None


def rows_in_process(request: Request) -> tuple[TracedRows, ...]:
    """Return the rows of sampled queries in a request to a model in this process."""
    return tuple(part.rows(part.trace.span_id) for part in request.traced)


class QueryTraces:
    """Notes what becomes of sampled queries.

    Args:
        sink: Takes the notes; None: nothing is recorded, whatever is sampled.
        metrics: Are told of sampled queries, as the examples of their latencies.

    Attributes:
        sink: As given.
        is_on: Whether anything is recorded.
        undecided: Traces that were begun since the last decisions.
    """

    def __init__(self, sink: TraceSink | None = None, metrics: RouterMetrics | None = None) -> None:
        self.sink, self._metrics, self.is_on = sink, metrics, sink is not None
        self.undecided: list[QueryTrace] = []
        self._example_ns = 0

    # --- queries ----------------------------------------------------------------------------------------------------
    def begin(self, record: Record, traceparent: bytes) -> QueryTrace | None:
        """Begin the trace of a query that is sampled; None where its context has another form."""
        parent = well_formed(traceparent)
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
        """Note that predictions are in the log, at these offsets; now and then one is the example of its latency."""
        found = _traced(outgoing, offsets)
        if not found:
            return
        now_ns = time.time_ns()
        for trace, one, place, offset in found:
            trace.is_recorded = True
            self._put(_answered(trace, one, place, (topic, offset), now_ns))
        if self._metrics is not None and now_ns >= self._example_ns:
            self._example_ns = now_ns + EXAMPLE_EVERY_NS
            trace, one, place, _ = found[-1]
            observed = _observed(one, place)
            if observed is not None:
                application, outcome, latency_s = observed
                series = self._metrics.histogram("clipper_prediction_latency_seconds", application, outcome)
                series.keep_trace(latency_s, trace.parent[3:TRACE_END])

    def audited(self, topic: str, outgoing: Iterable[Sendable], offsets: Sequence[int], took_s: float) -> None:
        """Note that audits are in the log, at these offsets, since a round of so many seconds."""
        for trace, one, _, offset in _traced(outgoing, offsets):
            now_ns = time.time_ns()
            began_ns = now_ns - round(took_s * 1e9)
            self._put(RecordedNote(trace.parent, trace.span_id, one.partition, began_ns, now_ns, (topic, offset)))

    def drop(self, traces: Iterable[QueryTrace], why: str = "partition_taken") -> None:
        """Note that queries without a prediction get none here: their partitions were taken away."""
        for trace in {*traces}:
            if not trace.is_recorded:
                times = trace.began_ns, time.time_ns()
                self._put(ProcessedRecord(trace.parent, *trace.place, *times, {}, trace.span_id, why))

    # --- requests, outputs, feedback --------------------------------------------------------------------------------
    def sending(self, request: Request, topic: str) -> tuple[list[tuple[str, bytes]], Callable[[Any], None]]:
        """Return the headers of a request with traced rows, and what to call with its future once Kafka has it."""
        rows = (part.rows(part.span_id) for part in request.traced)
        return traced_rows_header(rows), partial(self._sent, request, topic)

    def _sent(self, request: Request, topic: str, sent: Any) -> None:
        is_lost = sent.cancelled() or sent.exception() is not None
        partition, offset = (None, -1) if is_lost else (sent.result().partition, sent.result().offset)
        parts = [part.told() for part in request.traced]
        self._put(SentRequest(topic, partition, offset, request.ref, len(request.rows), time.time_ns(), parts))

    def gathered(self, records: Iterable[Record], began_ns: int) -> None:
        """Note that outputs of sampled queries were gathered from a moment until now."""
        for record in records:
            header = header_of_rows(record.headers)
            if header is not None:
                place = record.topic, record.partition, record.offset
                self._put(GatheredOutputs(header, *place, began_ns, time.time_ns()))

    def begin_feedback(self, records: Iterable[Record]) -> TracedFeedback | None:
        """Return those of the records that are sampled, None where none is."""
        found = [
            (record, parent) for record in records if record.headers and (parent := sampled_context(record.headers))
        ]
        return (found, time.time_ns()) if found else None

    def learned(self, feedback: TracedFeedback, step: Step, forwarded: Collection[int]) -> None:
        """Note that sampled feedback was learned from in a step, or forwarded, by its offset."""
        records, began_ns = feedback
        refused = {record.offset: type(error).__name__ for record, error in step.refused}
        used = {*step.applied_feedback.values()}
        for record, parent in records:
            outcome = "forwarded" if record.offset in forwarded else "used" if record.offset in used else "duplicate"
            found: dict[str, Any] = {"clipper.feedback.outcome": refused.get(record.offset, outcome)}
            place = record.topic, record.partition, record.offset
            self._put(ProcessedRecord(parent, *place, began_ns, time.time_ns(), found))

    def _put(self, note: msgspec.Struct) -> None:
        if self.sink is not None:
            self.sink.put(note)


def _traced(outgoing: Iterable[Sendable], offsets: Sequence[int]) -> list[Traced]:
    found, at = list[Traced](), 0
    for one in outgoing:
        found += [(trace, one, place, offsets[at + place]) for place, trace in one.traces]
        at += one.size
    return found


def _observed(one: Sendable, place: int) -> tuple[str, str, float] | None:
    """Return application, outcome and latency in seconds as metrics have them; None for what is in no series."""
    if isinstance(one, OutgoingBlock):
        block, indices, at_s, _, refusals = one.answers
        latency_s = at_s - block.queries.queried_at_s[indices[place]]
        return block.application.name, "default" if refusals else "model", max(0.0, latency_s)
    answer = one.answer
    if answer is None or answer.application is None:
        return None
    latency_s = answer.decided_at_s - answer.query.queried_at_s
    return answer.application.name, "default" if answer.default else "model", max(0.0, latency_s)


def _answered(trace: QueryTrace, one: Sendable, place: int, log: tuple[str, int], now_ns: int) -> AnsweredQuery:
    times = trace.began_ns, trace.decoded_ns, trace.decided_ns, trace.answered_ns, now_ns
    where = trace.parent, trace.span_id, *trace.place, times, log
    return _in_block(where, one.answers, place) if isinstance(one, OutgoingBlock) else _alone(where, one)


_Where: TypeAlias = tuple[str, str, str, int, int, tuple[int, int, int, int, int], tuple[str, int]]
"""The first fields of an `AnsweredQuery`."""


def _in_block(where: _Where, answers: BlockAnswers, place: int) -> AnsweredQuery:
    block, indices, at_s, combined, refusals = answers
    index, application = indices[place], block.application
    query = application.name, block.queries.query_ids[index], 1, round(at_s * 1e9)
    note = AnsweredQuery(*where, *query, refusals[place].reason if refusals else None)
    if not block.decisions:
        return note
    chosen = block.decisions[index]
    note.policy, note.revision, note.models = application.policy.name, application.revision, [*chosen.models]
    note.propensity = chosen.served_propensity
    if refusals:
        note.missing = [f"{ref} {note.reason}" for ref in chosen.models]
    else:
        note.confidence = combined[place].confidence if combined else 1.0
        slots = zip(chosen.models, block.slots_of(index), strict=True)
        note.cached = [ref for ref, slot in slots if not block.arrived_s[slot]]
    return note


def _alone(where: _Where, one: Outgoing) -> AnsweredQuery:
    answer, query = one.answer, one.query
    if answer is None:
        return AnsweredQuery(*where, query.application, query.query_id, 0, 0, None)
    reason = None if answer.failure is None else answer.failure.reason
    rows, at_ns = answer.pending.count, round(answer.decided_at_s * 1e9)
    note = AnsweredQuery(*where, query.application, query.query_id, rows, at_ns, reason)
    if answer.application is not None:
        note.policy = answer.application.policy.name if query.models is None else NAMED
        note.revision, note.propensity = answer.application.revision, answer.served_propensity
    note.models = [*(each.ref for each in answer.used), *(each.ref for each in answer.missing)]
    note.confidence, note.cached = answer.confidence, [each.ref for each in answer.used if each.cached]
    note.missing = [f"{each.ref} {each.failure.reason}" for each in answer.missing]
    return note


UNTRACED = QueryTraces()
"""Where nothing is recorded."""
