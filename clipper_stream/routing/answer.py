"""The answer to one query, with everything that the decision log wants to know about it."""

from dataclasses import dataclass
from typing import Any

from clipper_stream.combining.combiner import Combined, combine
from clipper_stream.errors import ModelFailed
from clipper_stream.routing.application import Application
from clipper_stream.routing.life import Life
from clipper_stream.routing.pending import Pending
from clipper_stream.routing.received import Received


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUse:
    """A model that answered in time.

    Attributes:
        ref: Of the model.
        propensity: Probability with which this query asked it.
        served: Whether its outputs count in the answer; an audited model's do not.
        outputs: One a row.
        latency_s: From the decision until its last output was here.
        cached: Whether every row came from the cache.
    """

    ref: str
    propensity: float
    served: bool
    outputs: list[Any]
    latency_s: float
    cached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Unused:
    """A model that was asked and did not answer in time, or failed. `reason` is `late` or `error`."""

    ref: str
    propensity: float
    served: bool
    reason: str
    explanation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to tell the application, and why.

    Attributes:
        life: The query's.
        application: Its application; None when it is not registered.
        outputs: The combined outputs, one a row.
        confidence: Least agreement over the rows, in [0, 1].
        reason: Why the default was given, None when it was not.
        explanation: The same in words.
        served_propensity: Probability with which the policy chose exactly the models served.
        used: The models that answered.
        unused: The models that did not.
        decided_at_s: When, seconds since the epoch.
    """

    life: Life
    application: Application | None
    outputs: list[Any]
    decided_at_s: float
    confidence: float = 0.0
    reason: str | None = None
    explanation: str | None = None
    served_propensity: float | None = None
    used: tuple[ModelUse, ...] = ()
    unused: tuple[Unused, ...] = ()

    @property
    def query(self) -> Received:
        """The query."""
        return self.life.query

    @property
    def default(self) -> bool:
        """Whether the default output was given, for one row at least."""
        return self.reason is not None


def refusal(life: Life, application: Application | None, reason: str, explanation: str, now_s: float) -> Answer:
    """The default output, without asking anybody."""
    default = application.default_output if application else None
    return Answer(
        life=life,
        application=application,
        outputs=[default] * max(1, len(life.query.rows)),
        reason=reason,
        explanation=explanation,
        decided_at_s=now_s,
    )


def conclude(pending: Pending, now_s: float) -> Answer:
    """The answer from what has arrived: combined, or the default with its reason."""
    application, decision = pending.application, pending.decision
    used, unused = _uses(pending)
    combined, failure = _combined(pending, used)
    confidence = min((one.confidence if one else 0.0) for one in combined)
    outputs = [one.output if one else application.default_output for one in combined]
    reason, explanation = failure if failure is not None else _why_default(pending, unused, combined, confidence)
    if reason == "low_confidence":
        outputs = [application.default_output] * pending.count
    return Answer(
        life=pending.life,
        application=application,
        outputs=outputs,
        confidence=confidence,
        reason=reason,
        explanation=explanation,
        served_propensity=decision.served_propensity,
        used=used,
        unused=unused,
        decided_at_s=now_s,
    )


def _combined(pending: Pending, used: tuple[ModelUse, ...]) -> tuple[list[Combined | None], tuple[str, str] | None]:
    """Each row's answer, None where nobody served it; and why outputs that are here cannot be combined."""
    kind, asked = pending.application.combiner, len(pending.decision.served)
    combined: list[Combined | None] = []
    failure: tuple[str, str] | None = None
    for row in range(pending.count):
        outputs = {use.ref: use.outputs[row] for use in used if use.served}
        try:
            combined.append(combine(kind, outputs, pending.weights, asked) if outputs else None)
        except ModelFailed as error:
            combined.append(None)
            failure = "errors", str(error)
    return combined, failure


def _uses(pending: Pending) -> tuple[tuple[ModelUse, ...], tuple[Unused, ...]]:
    used: list[ModelUse] = []
    unused: list[Unused] = []
    decision = pending.decision
    for index, (ref, propensity) in enumerate(zip(decision.models, decision.propensities, strict=True)):
        served = ref in decision.served
        failure = pending.failure(index)
        if failure is None:
            used.append(
                ModelUse(
                    ref=ref,
                    propensity=propensity,
                    served=served,
                    outputs=pending.outputs[index],
                    latency_s=pending.latency_s[index],
                    cached=pending.cached[index],
                )
            )
        else:
            reason, explanation = failure
            unused.append(Unused(ref=ref, propensity=propensity, served=served, reason=reason, explanation=explanation))
    return tuple(used), tuple(unused)


def _why_default(
    pending: Pending, unused: tuple[Unused, ...], combined: list[Combined | None], confidence: float
) -> tuple[str | None, str | None]:
    application = pending.application
    if None in combined:
        failures = [model for model in unused if model.served]
        who = ", ".join(model.ref for model in failures)
        if any(model.reason == "late" for model in failures):
            bound_ms = round((pending.deadline_s - pending.query.queried_at_s) * 1000)
            return "late", f"no output of {who} within {bound_ms} ms of the query's timestamp"
        return "errors", f"{who} failed: {failures[0].explanation}" if failures else f"{who} failed"
    if confidence < application.confidence_threshold:
        bound = application.confidence_threshold
        return "low_confidence", f"confidence {confidence:.3f} is below the application's threshold {bound}"
    return None, None
