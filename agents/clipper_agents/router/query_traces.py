"""Spans of sampled queries in a router, from the record that was read to the prediction in the log.

Rules of this file:
- The span of a query is part of its batch, and is forgotten with it: nobody looks for sampled queries among others.
- A clock is read only for a chunk, a record or a round with a sampled query in it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from aiokafka import ConsumerRecord
from opentelemetry.trace import SpanKind

from clipper_agents.feedback.feedback_step import Step
from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.indexed_log import OutgoingRecords
from clipper_stream.query import Answers, Failure, Request
from clipper_topics.codec import read_headers
from clipper_topics.trace_context import TracedRows, context_in, is_sampled, record_attributes, traced_rows_header

if TYPE_CHECKING:
    from clipper_agents.observability.span_exporter import SpanRecorder, WorkerSpan

EXAMPLE_EVERY_S = 0.1
"""More examples of latencies than ten a second nobody scrapes."""
Record: TypeAlias = ConsumerRecord[Any, Any]


class QueryTraces:
    """Records the spans of sampled queries and feedback; nothing without a recorder.

    Attributes:
        recorder: As given.
        is_on: Whether anything is recorded.
        undecided: Spans that were begun since the last decisions.
    """

    def __init__(self, recorder: "SpanRecorder | None" = None, metrics: RouterMetrics | None = None) -> None:
        self.recorder, self._metrics, self.is_on = recorder, metrics, recorder is not None
        self.undecided: list[WorkerSpan] = []
        self._example_s = 0.0

    # --- queries ----------------------------------------------------------------------------------------------------
    def begin(self, record: Record, traceparent: bytes) -> "WorkerSpan | None":
        """Begin the span of a query that is sampled; None where its context has another form."""
        span = self._begun(record, traceparent)
        if span is not None:
            self.undecided.append(span)
        return span

    def decided(self, requests: Iterable[Request]) -> None:
        """Note that all queries that were begun are decided about, and in which requests their rows are."""
        for span in self.undecided:
            if not span.has_ended:
                span.add_event("decided")
        self.undecided.clear()
        for request in requests:
            request.traced.extend(_traced_rows(request))

    def sending(self, request: Request) -> tuple[list[tuple[str, bytes]], Callable[[Any], None]]:
        """Return the headers of a request with traced rows, and what to call with its future once Kafka has it."""
        return traced_rows_header(rows for rows, _ in request.traced), partial(_note_sent, request)

    def recorded(self, outgoing: Iterable[OutgoingRecords], offsets: Sequence[int]) -> None:
        """Note that predictions are in the log, at these offsets; now and then one is the example of its latency."""
        first = 0
        for records in outgoing:
            for place, span in records.traces:
                about = _prediction(span, records, place)
                span.end({**about, "clipper.prediction.offset": offsets[first + place]})
                if records.answers is not None and records.answers.decided_at_s >= self._example_s:
                    self._example_s = records.answers.decided_at_s + EXAMPLE_EVERY_S
                    self._keep_example(span, records, records.answers, place)
            first += len(records.values)

    def drop(self, spans: "Iterable[WorkerSpan]", why: str = "partition_taken") -> None:
        """End the spans of queries that get no prediction here: their partitions were taken away."""
        for span in spans:
            if not span.has_ended:
                span.end({"error.type": why})

    def _keep_example(self, span: "WorkerSpan", records: OutgoingRecords, answers: Answers, place: int) -> None:
        batch, query = records.batch, records.entries[place]
        if self._metrics is not None and batch.is_registered:
            outcome = "default" if query in answers.failures else "model"
            series = self._metrics.histogram("clipper_prediction_latency_seconds", batch.application, outcome)
            latency_s = max(0.0, answers.decided_at_s - batch.queried_at_s[query])
            series.keep_trace(latency_s, f"{span.context.trace_id:032x}")

    # --- feedback ---------------------------------------------------------------------------------------------------
    def begin_feedback(self, records: Iterable[Record]) -> "list[WorkerSpan]":
        sampled = ((record, read_headers(record.headers)[2]) for record in records if record.headers)
        spans = (self._begun(record, given) for record, given in sampled if given is not None)
        return [span for span in spans if span is not None]

    def learned(self, spans: "Iterable[WorkerSpan]", step: Step, forwarded: Collection[int]) -> None:
        """Note that sampled feedback was learned from in a step, or forwarded, by its offset."""
        refused = {record.offset: type(error).__name__ for record, error in step.refused}
        used = {*step.applied_feedback.values()}
        for span in spans:
            offset = span.attributes["messaging.kafka.offset"]
            outcome = "forwarded" if offset in forwarded else "used" if offset in used else "duplicate"
            span.end({"clipper.feedback.outcome": refused.get(offset, outcome)})

    def _begun(self, record: Record, traceparent: bytes) -> "WorkerSpan | None":
        parent = context_in(traceparent.decode("ascii", "replace"))
        if self.recorder is None or not is_sampled(parent):
            return None
        about = record_attributes("process", record.topic, record.partition, record.offset)
        return self.recorder.begin(f"process {record.topic}", SpanKind.CONSUMER, parent, about)


def _traced_rows(request: Request) -> "Iterator[tuple[TracedRows, WorkerSpan]]":
    first = 0
    for batch, slots, _ in request.asked:
        asked = {*slots} if batch.traces else set()
        for query, span in batch.traces.items():
            for entry in batch.entries_of(query):
                own = asked.intersection(range(*batch.slot_start[entry : entry + 2]))
                if own:
                    start = first + slots.index(min(own))
                    yield TracedRows(start, start + len(own), span.context), span
        first += len(slots)


def _note_sent(request: Request, sent: Any) -> None:
    about = {"clipper.model": request.ref}
    if sent.cancelled() or sent.exception() is not None:
        about["error.type"] = "not_stored"
    for _, span in request.traced:
        span.add_event("request", about)


def _prediction(span: "WorkerSpan", records: OutgoingRecords, place: int) -> dict[str, Any]:
    """Return what a prediction says of its query, and note in its span when the models answered."""
    batch, query, answers = records.batch, records.entries[place], records.answers
    about: dict[str, Any] = {"clipper.application": batch.application, "clipper.query_id": batch.ids[query]}
    if answers is None:
        return {**about, "clipper.repeated": True}
    about["clipper.rows"] = batch.count(query)
    if batch.is_registered:
        about["clipper.revision"] = batch.manifest.revision
    if query in answers.failures:
        about["clipper.default.reason"] = answers.failures[query].reason
    answered_ns, decision = round(answers.decided_at_s * 1e9), batch.decision_of(query)
    for ref, slots in zip(decision.models, batch.slots_of(query), strict=True) if decision is not None else ():
        failures = [output for output in batch.outputs[slots] if output.__class__ is Failure]
        arrived_s = max(batch.arrived_s[slots])
        if len(failures) == slots.stop - slots.start:
            span.add_event("no output", {"clipper.model": ref, "error.type": failures[0].reason}, answered_ns)
        elif arrived_s:
            span.add_event("output", {"clipper.model": ref}, round(arrived_s * 1e9))
        else:
            span.add_event("cached output", {"clipper.model": ref}, round(batch.asked_at_s * 1e9))
    span.add_event("answered", at_ns=answered_ns)
    return about


UNTRACED = QueryTraces()
"""Where nothing is recorded."""
