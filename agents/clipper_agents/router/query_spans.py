"""The spans of sampled queries in a router, made of what was noted on their way.

    process queries -------------------------------------------------------------- of one query
      decode, decide, send requests (to each model), process outputs, combine, record predictions

Rules of this file:
- It is called in a thread, when the queries have gone: it only reads.
- A span about a record has the record's writer as its parent, and a link to it.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from clipper_agents.feedback.feedback_step import Step
from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.observability.tracing import CONSUMER, INTERNAL, PRODUCER, Span
from clipper_agents.router.outgoing_records import OutgoingBlock, Sendable
from clipper_stream.query import BlockAnswers, QueryAnswer
from clipper_topics.prediction import NAMED
from clipper_topics.trace_context import read_traced_rows, record_attributes, trace_and_span

if TYPE_CHECKING:
    from clipper_agents.router.query_traces import QueryTrace, Record, TracedPart

Attributes: TypeAlias = dict[str, Any]
Traced: TypeAlias = Iterable[tuple["QueryTrace", Sendable, int, int]]
"""Each trace with the records that its query's is among, its place there, and its offset."""


# --- queries ----------------------------------------------------------------------------------------------------------
def of_predictions(topic: str, traced: Traced, now_ns: int, metrics: RouterMetrics | None) -> Iterator[Span]:
    """Yield the spans of queries whose predictions are in the log now."""
    for trace, one, place, offset in traced:
        yield _within(trace, "decode", INTERNAL, trace.began_ns, trace.decoded_ns, {})
        if isinstance(one, OutgoingBlock):
            yield from _of_block(trace, one.answers, place, metrics)
        elif one.answer is not None:
            yield from _of_one(trace, one.answer, metrics)
        stored = record_attributes("record", "send", topic, trace.record.partition, offset)
        yield _within(trace, f"record {topic}", PRODUCER, trace.answered_ns, now_ns, stored)
        yield _whole(trace, now_ns, _outcome(one, place))


def of_audits(topic: str, traced: Traced, now_ns: int, took_s: float) -> Iterator[Span]:
    """Yield the spans of queries whose audits are in the log now, in a round of so many seconds."""
    for trace, _, _, offset in traced:
        stored = record_attributes("record", "send", topic, trace.record.partition, offset)
        yield _within(trace, f"record {topic}", PRODUCER, now_ns - round(took_s * 1e9), now_ns, stored)


def of_dropped(trace: "QueryTrace", now_ns: int, why: str) -> Iterator[Span]:
    """Yield the span of a query that gets no answer here."""
    yield _whole(trace, now_ns, {}, why)


def _of_one(trace: "QueryTrace", answer: QueryAnswer, metrics: RouterMetrics | None) -> Iterator[Span]:
    application, query, reason = answer.application, answer.query, answer.failure and answer.failure.reason
    if application is None or not (answer.used or answer.missing):
        yield _within(trace, "decide", INTERNAL, trace.decoded_ns, trace.decided_ns, {})
    else:
        policy = application.policy.name if query.models is None else NAMED
        refs = [*(one.ref for one in answer.used), *(one.ref for one in answer.missing)]
        decision = _decision(policy, application.revision, refs, answer.served_propensity)
        yield _within(trace, "decide", INTERNAL, trace.decoded_ns, trace.decided_ns, decision)
        yield _combine(
            trace, answer.decided_at_s, answer.confidence,
            [one.ref for one in answer.used],
            [one.ref for one in answer.used if one.cached],
            [f"{one.ref} {one.failure.reason}" for one in answer.missing],
        )  # fmt: skip
    if metrics is not None and application is not None:
        latency_s = max(0.0, answer.decided_at_s - query.queried_at_s)
        metrics.keep_trace(application.name, "default" if reason else "model", latency_s, trace.parent[3:35])


def _of_block(trace: "QueryTrace", answers: BlockAnswers, place: int, metrics: RouterMetrics | None) -> Iterator[Span]:
    block, indices, at_s, combined, refusals = answers
    index, application = indices[place], block.application
    if refusals:
        yield _within(trace, "decide", INTERNAL, trace.decoded_ns, trace.decided_ns, {})
    else:
        chosen = block.decisions[index]
        refs = [*chosen.models]
        decision = _decision(application.policy.name, application.revision, refs, chosen.served_propensity)
        yield _within(trace, "decide", INTERNAL, trace.decoded_ns, trace.decided_ns, decision)
        slots = zip(refs, block.slots_of(index), strict=True)
        cached = [ref for ref, slot in slots if not block.arrived_s[slot]]
        yield _combine(trace, at_s, combined[place].confidence if combined else 1.0, refs, cached, [])
    if metrics is not None:
        latency_s = max(0.0, at_s - block.queries.queried_at_s[index])
        metrics.keep_trace(application.name, "default" if refusals else "model", latency_s, trace.parent[3:35])


def _combine(
    trace: "QueryTrace", decided_at_s: float, confidence: float, answered: list[str], cached: list[str],
    missing: list[str],
) -> Span:  # fmt: skip
    attributes = {
        "clipper.confidence": confidence,
        "clipper.models.answered": answered,
        "clipper.models.cached": cached,
        "clipper.models.missing": missing,
    }
    start_ns = max(trace.decided_ns, round(decided_at_s * 1e9))
    return _within(trace, "combine", INTERNAL, start_ns, max(start_ns, trace.answered_ns), attributes)


def _decision(policy: str, revision: int, models: list[str], propensity: float | None) -> Attributes:
    found: Attributes = {"clipper.policy": policy, "clipper.revision": revision, "clipper.models": models}
    return found if propensity is None else {**found, "clipper.propensity": propensity}


def _outcome(one: Sendable, place: int) -> Attributes:
    if isinstance(one, OutgoingBlock):
        block, refusals = one.answers.block, one.answers.refusals
        query_id, reason = block.queries.query_ids[one.answers.indices[place]], refusals and refusals[place].reason
        return _ended(block.application.name, query_id, 1, reason or None)
    if one.answer is None:
        return {"clipper.application": one.query.application, "clipper.query_id": one.query.query_id}
    failure = one.answer.failure
    rows = one.answer.pending.count
    return _ended(one.query.application, one.query.query_id, rows, None if failure is None else failure.reason)


def _ended(application: str, query_id: str, rows: int, reason: str | None) -> Attributes:
    found: Attributes = {"clipper.application": application, "clipper.query_id": query_id, "clipper.rows": rows}
    found["clipper.default"] = reason is not None
    return found if reason is None else {**found, "clipper.default.reason": reason}


# --- requests, outputs, feedback --------------------------------------------------------------------------------------
def of_request(
    topic: str, ref: str, rows: int, parts: Iterable["TracedPart"], sent: Any, now_ns: int
) -> Iterator[Span]:
    """Yield the spans of a request of so many rows that Kafka has now, or has not taken."""
    is_lost = sent.cancelled() or sent.exception() is not None
    place = () if is_lost else (sent.result().partition, sent.result().offset)
    common = {**record_attributes("send", "send", topic, *place), "clipper.model": ref, "clipper.request.rows": rows}
    for part in parts:
        attributes = {**common, "clipper.rows": part.stop - part.start, "clipper.served": part.is_served}
        span = _within(part.trace, f"send {topic}", PRODUCER, part.trace.decided_ns, now_ns, attributes)
        yield span._replace(span_id=part.span_id, error="not_stored" if is_lost else "")


def of_outputs(records: Iterable["Record"], began_ns: int, now_ns: int) -> Iterator[Span]:
    """Yield the spans of outputs that were gathered."""
    for record in records:
        for rows in read_traced_rows(record.headers):
            yield _processed(record, rows.traceparent, began_ns, now_ns, {})


def of_feedback(
    records: Sequence[tuple["Record", str]], began_ns: int, now_ns: int, step: Step, forwarded: Collection[int]
) -> Iterator[Span]:
    """Yield the spans of feedback that was learned from in a step, or forwarded, by its offset."""
    refused = {record.offset: type(error).__name__ for record, error in step.refused}
    used = {*step.applied_feedback.values()}
    for record, parent in records:
        outcome = "forwarded" if record.offset in forwarded else "used" if record.offset in used else "duplicate"
        found = {"clipper.feedback.outcome": refused.get(record.offset, outcome)}
        yield _processed(record, parent, began_ns, now_ns, found)


# --- spans ------------------------------------------------------------------------------------------------------------
def _within(trace: "QueryTrace", name: str, kind: str, start_ns: int, end_ns: int, attributes: Attributes) -> Span:
    """Make a span of something that was done for a query."""
    return Span(name, kind, trace.parent[3:35], "", trace.span_id, start_ns, end_ns, attributes)


def _whole(trace: "QueryTrace", now_ns: int, attributes: Attributes, error: str = "") -> Span:
    """Make the span that all others of a query are in."""
    span = _processed(trace.record, trace.parent, trace.began_ns, now_ns, attributes)
    return span._replace(span_id=trace.span_id, error=error)


def _processed(record: "Record", parent: str, began_ns: int, now_ns: int, attributes: Attributes) -> Span:
    trace_id, parent_id = trace_and_span(parent)
    about = {**attributes, **record_attributes("process", "process", record.topic, record.partition, record.offset)}
    name, links = f"process {record.topic}", ((trace_id, parent_id),)
    return Span(name, CONSUMER, trace_id, "", parent_id, began_ns, now_ns, about, links)
