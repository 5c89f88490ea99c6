"""The answer to one query, with everything that the decision log wants to know about it.

Rules of this file:
- A packed query is answered row by row: a row that one model failed on is combined from the others, and only a row that
  nobody answered gets the default.
- Records are tuples, because one of each is made for every query.
- A query in flight asks for its answer or for the log: all of its models are served, or none is.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from clipper_stream.combining.combiner import Combined, combine
from clipper_stream.errors import ModelFailed, shown
from clipper_stream.query.application import Application
from clipper_stream.query.decoded_query import DecodedQuery
from clipper_stream.query.in_flight import Failure, InFlightQuery, NoOutput

LATE: Failure = ("late", "no output by the deadline")
LOST_AUDIT: Failure = ("late", "the router that asked ended before the outputs were in the log; nobody was asked again")


class MissingRow(NamedTuple):
    """A row of a packed query that a model did not answer. `reason` is `late` or `error`."""

    row: int
    reason: str
    explanation: str


class ModelUse(NamedTuple):
    """A model that answered in time, at least for one row.

    Attributes:
        ref: Of the model.
        propensity: Probability with which this query asked it.
        served: Whether its outputs count in the answer; an audited model's do not.
        outputs: One a row; None for a row that it did not answer.
        latency_s: From the decision until its last output was here; 0 when all were cached.
        cached: Whether every row came from the cache.
        missing: The rows that it did not answer.
    """

    ref: str
    propensity: float
    served: bool
    outputs: Sequence[Any]
    latency_s: float
    cached: bool
    missing: tuple[MissingRow, ...] = ()


class MissingModel(NamedTuple):
    """A model that was asked and answered no row in time. `reason` is `late` or `error`."""

    ref: str
    propensity: float
    served: bool
    reason: str
    explanation: str


class QueryAnswer(NamedTuple):
    """What to tell the application, and why; or, of an audit, what to write down.

    Attributes:
        pending: The query in flight.
        application: Its application; None when it is not registered.
        outputs: The combined outputs, one a row.
        decided_at_s: When, seconds since the epoch.
        confidence: Least agreement over the rows, in [0, 1].
        reason: Why the default was given, for one row at least; None when it was not.
        explanation: The same in words.
        served_propensity: Probability with which the policy chose exactly the models served.
        used: The models that answered.
        unused: The models that did not.
    """

    pending: InFlightQuery
    application: Application | None
    outputs: Sequence[Any]
    decided_at_s: float
    confidence: float = 0.0
    reason: str | None = None
    explanation: str | None = None
    served_propensity: float | None = None
    used: tuple[ModelUse, ...] = ()
    unused: tuple[MissingModel, ...] = ()

    @property
    def query(self) -> DecodedQuery:
        """The query."""
        return self.pending.query

    @property
    def default(self) -> bool:
        """Whether the default output was given, for one row at least."""
        return self.reason is not None


def refusal(
    pending: InFlightQuery, application: Application | None, reason: str, explanation: str, now_s: float
) -> QueryAnswer:
    """The default output, without asking anybody."""
    default = application.default_output if application else None
    outputs = [default] * max(1, pending.count)
    return QueryAnswer(pending, application, outputs, now_s, reason=reason, explanation=explanation)


def conclude(pending: InFlightQuery, now_s: float) -> QueryAnswer:
    """The answer from what has arrived: combined, or the default with its reason."""
    if len(pending.outputs) == 1 and pending.open_places == 0 and pending.failures is None:
        return _of_one(pending, now_s)
    application, decision = pending.application, pending.decision
    used, unused = _uses(pending)
    combined, failure = _combined(pending, used)
    confidence = min((one.confidence if one else 0.0) for one in combined)
    outputs = [one.output if one else application.default_output for one in combined]
    reason, explanation = failure or _why_default(pending, combined, confidence)
    if reason == "low_confidence":
        outputs = [application.default_output] * pending.count
    return QueryAnswer(
        pending, application, outputs, now_s, confidence, reason, explanation, decision.served_propensity, used, unused
    )


def conclude_audit(pending: InFlightQuery, now_s: float) -> QueryAnswer:
    """What those said that were asked for the log only, so far: without outputs of its own."""
    used, unused = _uses(pending)
    return QueryAnswer(pending, pending.application, (), now_s, used=used, unused=unused)


def lost_audit(
    pending: InFlightQuery, application: Application | None, asked: Mapping[str, float], now_s: float
) -> QueryAnswer:
    """The audit of a query that was answered by a process that ended before: nobody is asked again.

    Args:
        pending: The query, as it was read again.
        application: Its application.
        asked: Whom it asked for the log only, and with which probability, as far as that can be told again.
        now_s: The time, seconds since the epoch.
    """
    unused = tuple(MissingModel(ref, propensity, False, *LOST_AUDIT) for ref, propensity in asked.items())  # noqa: FBT003
    return QueryAnswer(pending, application, (), now_s, unused=unused)


def _of_one(pending: InFlightQuery, now_s: float) -> QueryAnswer:
    """The output of the only model for the only row is the answer, and everybody asked agrees with it."""
    decision, outputs, arrived_s = pending.decision, pending.outputs, pending.arrived_s[0]
    latency_s = arrived_s - pending.asked_at_s if arrived_s else 0.0
    use = ModelUse(decision.models[0], decision.propensities[0], True, outputs, latency_s, not arrived_s)  # noqa: FBT003
    return QueryAnswer(
        pending, pending.application, outputs, now_s, 1.0, None, None, decision.served_propensity, (use,)
    )


def _combined(
    pending: InFlightQuery, served: Sequence[ModelUse]
) -> tuple[list[Combined | None], tuple[str, str] | None]:
    """Each row's answer, None where nobody served it; and why outputs that are here cannot be combined."""
    kind, asked = pending.application.combiner, len(pending.decision.served)
    if len(served) == 1:
        confidence = 1.0 / asked
        return [None if output is None else Combined(output, confidence) for output in served[0].outputs], None
    combined: list[Combined | None] = []
    failure: tuple[str, str] | None = None
    for row in range(pending.count):
        outputs = {use.ref: use.outputs[row] for use in served if use.outputs[row] is not None}
        try:
            combined.append(combine(kind, outputs, pending.weights, asked) if outputs else None)
        except ModelFailed as error:
            combined.append(None)
            failure = "errors", str(error)
    return combined, failure


def _uses(pending: InFlightQuery) -> tuple[tuple[ModelUse, ...], tuple[MissingModel, ...]]:
    used: list[ModelUse] = []
    unused: list[MissingModel] = []
    decision, count = pending.decision, pending.count
    incomplete = pending.open_places > 0 or pending.failures is not None
    served = pending.audit_of is None
    for model, (ref, propensity) in enumerate(zip(decision.models, decision.propensities, strict=True)):
        outputs = pending.outputs[model * count : (model + 1) * count]
        missing = list(_missing_rows(pending, model, outputs)) if incomplete else []
        if len(missing) == count:
            unused.append(MissingModel(ref, propensity, served, missing[0].reason, missing[0].explanation))
        else:
            arrived_s = pending.arrived_s[model]
            latency_s = arrived_s - pending.asked_at_s if arrived_s else 0.0
            answered = [None if isinstance(output, NoOutput) else output for output in outputs] if missing else outputs
            used.append(ModelUse(ref, propensity, served, answered, latency_s, not arrived_s, tuple(missing)))
    return tuple(used), tuple(unused)


def _missing_rows(pending: InFlightQuery, model: int, outputs: list[Any]) -> Iterator[MissingRow]:
    failures = pending.failures or {}
    for row, output in enumerate(outputs):
        if isinstance(output, NoOutput):
            yield MissingRow(row, *failures.get(model * pending.count + row, LATE))


def _why_default(
    pending: InFlightQuery, combined: list[Combined | None], confidence: float
) -> tuple[str | None, str | None]:
    application = pending.application
    rows = [row for row, one in enumerate(combined) if one is None]
    if rows:
        return _why_nobody(pending, rows)
    if confidence < application.confidence_threshold:
        bound = application.confidence_threshold
        return "low_confidence", f"confidence {confidence:.3f} is below the application's threshold {bound}"
    return None, None


def _why_nobody(pending: InFlightQuery, rows: list[int]) -> tuple[str, str]:
    """Why there is no output of a served model for these rows."""
    served, failures = pending.decision.served, pending.failures or {}
    who = ", ".join(served)
    where = f" for rows {shown(rows)}" if pending.query.packed else ""
    reasons = [failures.get(model * pending.count + row, LATE) for row in rows for model in range(len(served))]
    if any(reason == "late" for reason, _ in reasons):
        bound_ms = round((pending.deadline_s - pending.query.queried_at_s) * 1000)
        return "late", f"no output of {who} within {bound_ms} ms of the query's timestamp{where}"
    return "errors", f"{who} failed{where}: {reasons[0][1]}"
