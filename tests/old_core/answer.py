"""The answer to one query, with everything that the decision log wants to know about it.

Rules of this file:
- A packed query is answered row by row: a row that one model failed on is combined from the others, and only a row that
  nobody answered gets the default.
- Records are tuples, because one of each is made for every query.
- A query in flight asks for its answer or for the log: all of its models are served, or none is.
"""

import marshal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from clipper_stream.combining.combiner import VOTE, Combined, combine
from clipper_stream.errors import ModelFailed, shown
from clipper_stream.query.application import Application
from old_core.in_flight import LATE, NO_FAILURES, DecodedQuery, Failure, InFlightQuery
from old_core.query_block import BlockAnswers, QueryBlock
from old_core.row_batch import MARSHAL_FORMAT
from clipper_stream.query.status import Status, move

LOST_AUDIT = Failure("late", "the router that asked ended before the outputs were in the log; nobody was asked again")


class ModelUse(NamedTuple):
    """A model that answered in time, at least for one row.

    Attributes:
        propensity: Probability with which this query asked it.
        served: Whether its outputs count in the answer; an audited model's do not.
        outputs: One a row; None for a row that it did not answer.
        latency_s: From the decision until its last output was here; 0 when all were cached.
        cached: Whether every row came from the cache.
        failures: By row, why it did not answer.
    """

    ref: str
    propensity: float
    served: bool
    outputs: Sequence[Any]
    latency_s: float
    cached: bool
    failures: Mapping[int, Failure] = NO_FAILURES


class MissingModel(NamedTuple):
    """A model that was asked and answered no row in time."""

    ref: str
    propensity: float
    served: bool
    failure: Failure


class QueryAnswer(NamedTuple):
    """The answer to a query with its reasons; or, of an audit, what its models said.

    Attributes:
        application: None when it is not registered.
        outputs: The combined outputs, one a row.
        confidence: Least agreement over the rows, in [0, 1].
        failure: Why the default was given, for one row at least; None when it was not.
        served_propensity: Probability with which the policy chose exactly the models served.
    """

    pending: InFlightQuery
    application: Application | None
    outputs: Sequence[Any]
    decided_at_s: float
    confidence: float = 0.0
    failure: Failure | None = None
    served_propensity: float | None = None
    used: tuple[ModelUse, ...] = ()
    missing: tuple[MissingModel, ...] = ()

    @property
    def query(self) -> DecodedQuery:
        """The query."""
        return self.pending.query

    @property
    def default(self) -> bool:
        """Whether the default output was given, for one row at least."""
        return self.failure is not None


def refuse(pending: InFlightQuery, application: Application | None, failure: Failure, now_s: float) -> QueryAnswer:
    """Answer with the default output, without asking a model; its rows are forgotten."""
    pending.move(Status.DEFAULTED)
    pending.query.rows.clear()
    default = application.default_output if application else None
    return QueryAnswer(pending, application, [default] * max(1, pending.count), now_s, failure=failure)


def conclude(pending: InFlightQuery, now_s: float) -> QueryAnswer:
    """Answer a closed query from what has arrived: with the combined outputs, or the default and why."""
    if len(pending.outputs) == 1 and not pending.failed:
        return _of_one(pending, now_s)
    application, decision = pending.application, pending.decision
    used, missing = _models(pending)
    combined, failure = _combined(pending, used)
    confidence = min((one.confidence if one else 0.0) for one in combined)
    outputs = [one.output if one else application.default_output for one in combined]
    failure = failure or _why_default(pending, combined, confidence)
    if failure is not None and failure.reason == "low_confidence":
        outputs = [application.default_output] * pending.count
    return QueryAnswer(
        pending, application, outputs, now_s, confidence, failure, decision.served_propensity, used, missing
    )


def conclude_block(block: QueryBlock, indices: Sequence[int], now_s: float) -> tuple[BlockAnswers, list[int]]:
    """Answer complete queries of a block together; and those that have to leave it, whose answer is unusual."""
    unusual: list[int] = []
    if block.failed:
        unusual = [index for index in indices if index in block.failed]
        indices = [index for index in indices if index not in block.failed]
    if block.width == 1:
        move(block.status, indices, Status.ANSWERED)
        return BlockAnswers(block, indices, now_s), unusual
    answered, combined = list[int](), list[Combined]()
    for index, one in zip(indices, _combined_together(block, indices), strict=True):
        if one is None or one.confidence < block.application.confidence_threshold:
            unusual.append(index)
        else:
            answered.append(index)
            combined.append(one)
    move(block.status, answered, Status.ANSWERED)
    return BlockAnswers(block, answered, now_s, combined), unusual


def conclude_silent(block: QueryBlock, indices: Sequence[int], now_s: float) -> BlockAnswers:
    """The default for queries of a block of which nothing has come by their deadline."""
    move(block.status, indices, Status.DEFAULTED)
    asked = ((block.decisions[n].served, block.deadlines_s[n] - block.queries.queried_at_s[n]) for n in indices)
    return BlockAnswers(block, indices, now_s, refusals=[_no_output(served, round(s * 1000)) for served, s in asked])


def _combined_together(block: QueryBlock, indices: Sequence[int]) -> Iterator[Combined | None]:
    """The answer to each query, None where its outputs cannot be combined; labels are few, and so are their votes."""
    kind, refs, weights = block.application.combiner, block.decisions[0].models, block.weights
    columns = [block.outputs[start : start + block.count] for start in range(0, len(block.outputs), block.count)]
    votes: dict[bytes, Combined | None] = {}
    for index in indices:
        outputs = [column[index] for column in columns]
        ballots = _ballots(outputs) if kind == VOTE else b""
        if ballots in votes:
            yield votes[ballots]
            continue
        combined: Combined | None = None
        if not any(output is None for output in outputs):
            with suppress(ModelFailed):
                combined = combine(kind, dict(zip(refs, outputs, strict=True)), weights, len(refs))
        if ballots:
            votes[ballots] = combined
        yield combined


def _ballots(outputs: list[Any]) -> bytes:
    """What is equal for the same outputs alone: 1, 1.0 and true are one label, and three outputs. Empty: unknown."""
    try:
        return marshal.dumps(outputs, MARSHAL_FORMAT)
    except ValueError:
        return b""


def answers_of(some: BlockAnswers) -> list[QueryAnswer]:
    """The answers to queries of a block, one by one."""
    block, at_s, answers = some.block, some.decided_at_s, list[QueryAnswer]()
    for index, failure in zip(some.indices, () if block.decisions else some.refusals, strict=False):
        pending = InFlightQuery(block.queries.query(index))
        pending.shares_id = block.shares_id
        answers.append(refuse(pending, block.application, failure, at_s))
    for index in some.indices if block.decisions else ():
        pending = block.leave(index)
        answers.append(conclude(pending, at_s))
    return answers


def conclude_audit(pending: InFlightQuery, now_s: float) -> QueryAnswer:
    """List what the models of a closed audit said; there are no outputs to answer with."""
    used, missing = _models(pending)
    return QueryAnswer(pending, pending.application, (), now_s, used=used, missing=missing)


def lost_audit(
    pending: InFlightQuery, application: Application | None, asked: Mapping[str, float], now_s: float
) -> QueryAnswer:
    """The audit of a query that was answered by a process that ended before: nobody is asked again.

    `asked` has the propensity of each model that it asked for the log only, as far as that can be told again.
    """
    missing = tuple(MissingModel(ref, chance, served=False, failure=LOST_AUDIT) for ref, chance in asked.items())
    return QueryAnswer(pending, application, (), now_s, missing=missing)


def _of_one(pending: InFlightQuery, now_s: float) -> QueryAnswer:
    """The output of the only model for the only row is the answer, and everybody asked agrees with it."""
    decision, outputs, arrived_s = pending.decision, pending.outputs, pending.arrived_s[0]
    latency_s = arrived_s - pending.asked_at_s if arrived_s else 0.0
    use = ModelUse(decision.models[0], decision.propensities[0], True, outputs, latency_s, not arrived_s)  # noqa: FBT003
    return QueryAnswer(pending, pending.application, outputs, now_s, 1.0, None, decision.served_propensity, (use,))


def _models(pending: InFlightQuery) -> tuple[tuple[ModelUse, ...], tuple[MissingModel, ...]]:
    """The models that answered a row at least, and those that did not."""
    used: list[ModelUse] = []
    missing: list[MissingModel] = []
    decision, count = pending.decision, pending.count
    served, failures = pending.audit_of is None, NO_FAILURES
    for model, (ref, propensity) in enumerate(zip(decision.models, decision.propensities, strict=True)):
        outputs = pending.outputs[model * count : (model + 1) * count]
        if pending.failed:
            failures = {row: output for row, output in enumerate(outputs) if isinstance(output, Failure)}
        if len(failures) == count:
            missing.append(MissingModel(ref, propensity, served, failures[0]))
            continue
        if failures:
            outputs = [None if row in failures else output for row, output in enumerate(outputs)]
        arrived_s = pending.arrived_s[model]
        latency_s = arrived_s - pending.asked_at_s if arrived_s else 0.0
        used.append(ModelUse(ref, propensity, served, outputs, latency_s, not arrived_s, failures))
    return tuple(used), tuple(missing)


def _combined(pending: InFlightQuery, served: Sequence[ModelUse]) -> tuple[list[Combined | None], Failure | None]:
    """Each row's answer, None where nobody served it; and why outputs that are here cannot be combined."""
    kind, asked = pending.application.combiner, len(pending.decision.served)
    if len(served) == 1:
        confidence = 1.0 / asked
        return [None if output is None else Combined(output, confidence) for output in served[0].outputs], None
    combined: list[Combined | None] = []
    failure: Failure | None = None
    for row in range(pending.count):
        outputs = {use.ref: use.outputs[row] for use in served if use.outputs[row] is not None}
        try:
            combined.append(combine(kind, outputs, pending.weights, asked) if outputs else None)
        except ModelFailed as error:
            combined.append(None)
            failure = Failure("errors", str(error))
    return combined, failure


def _why_default(pending: InFlightQuery, combined: list[Combined | None], confidence: float) -> Failure | None:
    rows = [row for row, one in enumerate(combined) if one is None]
    if rows:
        return _why_nobody(pending, rows)
    bound = pending.application.confidence_threshold
    if confidence < bound:
        return Failure("low_confidence", f"confidence {confidence:.3f} is below the application's threshold {bound}")
    return None


def _why_nobody(pending: InFlightQuery, rows: list[int]) -> Failure:
    """Why there is no output of a served model for these rows."""
    served = pending.decision.served
    where = f" for rows {shown(rows)}" if pending.query.packed else ""
    outputs = [pending.outputs[model * pending.count + row] for row in rows for model in range(len(served))]
    failures = [output if isinstance(output, Failure) else LATE for output in outputs]
    if any(failure.reason == "late" for failure in failures):
        bound_ms = round((pending.deadline_s - pending.query.queried_at_s) * 1000)
        return _no_output(served, bound_ms, where)
    return Failure("errors", f"{', '.join(served)} failed{where}: {failures[0].explanation}")


@lru_cache(maxsize=1024)
def _no_output(served: tuple[str, ...], bound_ms: int, where: str = "") -> Failure:
    return Failure("late", f"no output of {', '.join(served)} within {bound_ms} ms of the query's timestamp{where}")
