"""What the spans of a sampled query say of its answer, whether it was answered alone or in a block."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from clipper_agents.router.outgoing_records import Outgoing, OutgoingBlock, Sendable
from clipper_stream.query import BlockAnswers, QueryAnswer
from clipper_topics.prediction import NAMED

Attributes = dict[str, Any]


class TracedAnswer(NamedTuple):
    """An answer that is in the log, as attributes of spans.

    Attributes:
        offset: Of its record.
        outcome: What became of the query.
        decision: Which models were chosen; None: it was answered before.
        combination: What came of the models; None: none was asked.
        decided_at_s: When the answer was decided, seconds since the epoch.
        observed: Application, outcome and latency in seconds, as metrics have it; None: it is in no metric.
    """

    offset: int
    outcome: Attributes
    decision: Attributes | None = None
    combination: Attributes | None = None
    decided_at_s: float = 0.0
    observed: tuple[str, str, float] | None = None


def traced_answers(outgoing: Iterable[Sendable], offsets: Sequence[int]) -> Iterator[tuple[Any, TracedAnswer]]:
    """Yield the traces of sampled queries among these records, which have these offsets, each with its answer."""
    at = 0
    for one in outgoing:
        if isinstance(one, OutgoingBlock):
            indices = one.answers.indices
            for index, trace in one.answers.block.queries.traces.items():
                if index in indices:
                    place = indices.index(index)
                    yield trace, _of_block(one.answers, index, place, offsets[at + place])
        elif one.query.trace is not None:
            yield one.query.trace, _alone(one, offsets[at])
        at += one.size


def _alone(one: Outgoing, offset: int) -> TracedAnswer:
    answer, query = one.answer, one.query
    if answer is None:
        return TracedAnswer(offset, {**_outcome(query.application, query.query_id), "clipper.repeated": True})
    reason = None if answer.failure is None else answer.failure.reason
    outcome = _outcome(query.application, query.query_id, answer.pending.count, reason)
    at_s, application = answer.decided_at_s, answer.application
    if application is None:
        return TracedAnswer(offset, outcome, {}, None, at_s)
    observed = application.name, _kind(reason), max(0.0, at_s - query.queried_at_s)
    if not answer.used and not answer.missing:
        return TracedAnswer(offset, outcome, {}, None, at_s, observed)
    policy = application.policy.name if query.models is None else NAMED
    decision = _decision(policy, application.revision, _models(answer), answer.served_propensity)
    return TracedAnswer(offset, outcome, decision, _combination_alone(answer), at_s, observed)


def _of_block(answers: BlockAnswers, index: int, place: int, offset: int) -> TracedAnswer:
    block, _, at_s, combined, refusals = answers
    queries, application = block.queries, block.application
    reason = refusals[place].reason if refusals else None
    outcome = _outcome(application.name, queries.query_ids[index], 1, reason)
    observed = application.name, _kind(reason), max(0.0, at_s - queries.queried_at_s[index])
    if refusals:
        return TracedAnswer(offset, outcome, {}, None, at_s, observed)
    chosen = block.decisions[index]
    decision = _decision(application.policy.name, application.revision, [*chosen.models], chosen.served_propensity)
    slots = zip(chosen.models, block.slots_of(index), strict=True)
    cached = [ref for ref, slot in slots if not block.arrived_s[slot]]
    combination = _combination(combined[place].confidence if combined else 1.0, [*chosen.models], cached, [])
    return TracedAnswer(offset, outcome, decision, combination, at_s, observed)


def _outcome(application: str, query_id: str, rows: int | None = None, reason: str | None = None) -> Attributes:
    found: Attributes = {"clipper.application": application, "clipper.query_id": query_id}
    if rows is not None:
        found |= {"clipper.rows": rows, "clipper.default": reason is not None}
    return found if reason is None else {**found, "clipper.default.reason": reason}


def _decision(policy: str, revision: int, models: list[str], propensity: float | None) -> Attributes:
    found: Attributes = {"clipper.policy": policy, "clipper.revision": revision, "clipper.models": models}
    return found if propensity is None else {**found, "clipper.propensity": propensity}


def _models(answer: QueryAnswer) -> list[str]:
    return [*(one.ref for one in answer.used), *(one.ref for one in answer.missing)]


def _combination_alone(answer: QueryAnswer) -> Attributes:
    cached = [one.ref for one in answer.used if one.cached]
    missing = [f"{one.ref} {one.failure.reason}" for one in answer.missing]
    return _combination(answer.confidence, [one.ref for one in answer.used], cached, missing)


def _combination(confidence: float, answered: list[str], cached: list[str], missing: list[str]) -> Attributes:
    return {
        "clipper.confidence": confidence,
        "clipper.models.answered": answered,
        "clipper.models.cached": cached,
        "clipper.models.missing": missing,
    }


def _kind(reason: str | None) -> str:
    return "model" if reason is None else "default"
