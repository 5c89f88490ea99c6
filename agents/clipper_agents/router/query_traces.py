"""Notes of sampled queries on their way through a router: which they are, and when what was done with them.

Rules of this file:
- A trace is part of its batch, and is forgotten with it: nobody looks for sampled queries among others.
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
from clipper_agents.router.indexed_log import OutgoingRecords
from clipper_stream.query import Answers, Failure, Request
from clipper_stream.query.batch import PLAIN
from clipper_topics.prediction import NAMED
from clipper_topics.trace_context import TracedRows, header_of_rows, sampled_context, traced_rows_header, well_formed

TRACE_END = 35
"""Where the trace ends in a `traceparent`."""
EXAMPLE_EVERY_NS = 100_000_000
"""More examples of latencies than ten a second nobody scrapes."""
Record: TypeAlias = ConsumerRecord[Any, Any]
Traced: TypeAlias = tuple["QueryTrace", OutgoingRecords, int, int]
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

    def as_note(self) -> tuple[str, str, str, int, bool, int]:
        trace = self.trace
        return trace.parent, trace.span_id, self.span_id, self.stop - self.start, self.is_served, trace.decided_ns


def traced_parts(request: Request) -> list[TracedPart]:
    """Return the parts of a request that are of sampled queries, each with all rows of one entry."""
    parts, first = list[TracedPart](), 0
    for batch, slots, _ in request.asked:
        entries = [batch.slot_entry[slot] for slot in slots] if batch.traces else []
        for query, trace in batch.traces.items():
            for entry in batch.entries_of(query):
                if entry in entries:
                    start = first + entries.index(entry)
                    stop = start + entries.count(entry)
                    parts.append(TracedPart(start, stop, trace, entry == query, new_span_id()))
        first += len(slots)
    return parts


def colocated_rows(request: Request) -> tuple[TracedRows, ...]:
    """Return the rows of sampled queries in a request to a model in this process."""
    return tuple(part.rows(part.trace.span_id) for part in request.traced)


class QueryTraces:
    """Notes what becomes of sampled queries.

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

    def answered(self, answers: Iterable[Answers]) -> None:
        traces = [trace for some in answers for query, trace in some.batch.traces.items() if query in some.entries]
        now_ns = time.time_ns() if traces else 0
        for trace in traces:
            trace.answered_ns = now_ns

    def recorded(self, topic: str, outgoing: Iterable[OutgoingRecords], offsets: Sequence[int]) -> None:
        """Note that predictions are in the log, at these offsets; now and then one is the example of its latency."""
        traced = _traced(outgoing, offsets)
        if not traced:
            return
        now_ns = time.time_ns()
        for trace, records, place, offset in traced:
            trace.is_recorded = True
            self._put(_answered(trace, records, place, (topic, offset), now_ns))
        if self._metrics is not None and now_ns >= self._example_ns:
            self._example_ns = now_ns + EXAMPLE_EVERY_NS
            trace, records, place, _ = traced[-1]
            observed = _observed(records, place)
            if observed is not None:
                application, outcome, latency_s = observed
                series = self._metrics.histogram("clipper_prediction_latency_seconds", application, outcome)
                series.keep_trace(latency_s, trace.parent[3:TRACE_END])

    def audited(self, topic: str, outgoing: Iterable[OutgoingRecords], offsets: Sequence[int], took_s: float) -> None:
        """Note that audits are in the log, at these offsets, since a round of so many seconds."""
        for trace, records, _, offset in _traced(outgoing, offsets):
            now_ns = time.time_ns()
            began_ns = now_ns - round(took_s * 1e9)
            self._put(
                RecordedNote(trace.parent, trace.span_id, records.batch.partition, began_ns, now_ns, (topic, offset))
            )

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
        parts = [part.as_note() for part in request.traced]
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
        sampled = [
            (record, parent) for record in records if record.headers and (parent := sampled_context(record.headers))
        ]
        return (sampled, time.time_ns()) if sampled else None

    def learned(self, feedback: TracedFeedback, step: Step, forwarded: Collection[int]) -> None:
        """Note that sampled feedback was learned from in a step, or forwarded, by its offset."""
        records, began_ns = feedback
        refused = {record.offset: type(error).__name__ for record, error in step.refused}
        used = {*step.applied_feedback.values()}
        for record, parent in records:
            outcome = "forwarded" if record.offset in forwarded else "used" if record.offset in used else "duplicate"
            attributes: dict[str, Any] = {"clipper.feedback.outcome": refused.get(record.offset, outcome)}
            place = record.topic, record.partition, record.offset
            self._put(ProcessedRecord(parent, *place, began_ns, time.time_ns(), attributes))

    def _put(self, note: msgspec.Struct) -> None:
        if self.sink is not None:
            self.sink.put(note)


def _traced(outgoing: Iterable[OutgoingRecords], offsets: Sequence[int]) -> list[Traced]:
    traced, at = list[Traced](), 0
    for records in outgoing:
        traced += [(trace, records, place, offsets[at + place]) for place, trace in records.traces]
        at += len(records.values)
    return traced


def _observed(records: OutgoingRecords, place: int) -> tuple[str, str, float] | None:
    """Return application, outcome and latency in seconds as metrics have them; None for what is in no series."""
    if records.answers is None or not records.batch.is_registered:
        return None
    query, failures = records.entries[place], records.answers.failures
    latency_s = records.answers.decided_at_s - records.batch.queried_at_s[query]
    return records.batch.application, "default" if query in failures else "model", max(0.0, latency_s)


def _answered(
    trace: QueryTrace, records: OutgoingRecords, place: int, log: tuple[str, int], now_ns: int
) -> AnsweredQuery:
    batch, query, answers = records.batch, records.entries[place], records.answers
    times = trace.began_ns, trace.decoded_ns, trace.decided_ns, trace.answered_ns, now_ns
    where = trace.parent, trace.span_id, *trace.place, times, log, batch.application, batch.ids[query]
    if answers is None:
        return AnsweredQuery(*where, 0, 0, None)
    reason = answers.failures[query].reason if query in answers.failures else None
    note = AnsweredQuery(*where, batch.count(query), round(answers.decided_at_s * 1e9), reason)
    decision = batch.decision_of(query)
    if decision is None:
        return note
    named = batch.options.get(query, PLAIN).models is not None
    note.policy, note.revision = NAMED if named else batch.manifest.policy.name, batch.manifest.revision
    note.models, note.propensity = [*decision.models], decision.served_propensity
    note.confidence = answers.confidences[place]
    for ref, slots in zip(decision.models, batch.slots_of(query), strict=True):
        failures = [output for output in batch.outputs[slots] if output.__class__ is Failure]
        if len(failures) == slots.stop - slots.start:
            note.missing.append(f"{ref} {failures[0].reason}")
        elif not max(batch.arrived_s[slots]):
            note.cached.append(ref)
    return note


UNTRACED = QueryTraces()
"""Where nothing is recorded."""
