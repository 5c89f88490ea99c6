"""What one query with its feedback says about versions: the loss of each that was asked, and that of the answer.

Rules of this file:
- A model is scored by `clipper_stream.feedback.fold.score`, for its prediction and for its audit alike.
- A model that was asked and did not answer has a loss of 1 where others are scored by a label: it must not gain by it.
- The answer is what the application's models answered. Where a canary answered instead, it is what the audit says that
  the policy's own choice said, if that was one model; of several nobody wrote down what they would have agreed on.
- A default because nobody answered has a loss of 1. One because the models agreed too little is an answer.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from clipper_agents.router.encoding import NAMED
from clipper_agents.router.learning import decision_of, truth_of
from clipper_stream.feedback.fold import LoggedDecision, score
from clipper_stream.feedback.losses import loss_of, loss_of_rows
from clipper_stream.feedback.truth import Label, Truth
from clipper_topics.audit import Audit
from clipper_topics.feedback import Feedback
from clipper_topics.prediction import Missing, ModelAnswer, Prediction

LOW_CONFIDENCE = "low_confidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLosses:
    """Losses in [0, 1].

    Attributes:
        models: Of each version that can be scored.
        answer: Of what the application's models answered; None: not known.
    """

    models: Mapping[str, float]
    answer: float | None


def decided_by_chance(prediction: Prediction) -> bool:
    """Whether a policy chose whom to ask: an application that names its models chooses the queries as well."""
    chosen = prediction.policy is not None and prediction.policy.name != NAMED
    return chosen and bool(prediction.models or prediction.missing)


def losses_of(
    prediction: Prediction, audit: Audit | None, feedback: Feedback, candidates: Collection[str], loss_kind: str
) -> QueryLosses:
    """What the query says.

    Args:
        prediction: The decision.
        audit: What was asked for the log only; None: nothing.
        feedback: What was true.
        candidates: The application's models; whatever else was asked is on trial.
        loss_kind: How a label is compared with an output.

    Raises:
        InvalidLabel: the label cannot be compared with an output.
    """
    truth, decision = truth_of(feedback), decision_of(prediction)
    served = dict(score(decision, truth, loss_kind).losses)
    audited: dict[str, float] = {}
    if isinstance(truth, Label):
        served = dict.fromkeys(map(_ref, prediction.missing), 1.0) | served
        audited = _audited(audit, truth, loss_kind) if audit is not None else {}
    if any(ref not in candidates for ref in decision.served):
        own = [loss for ref, loss in audited.items() if ref in candidates]
        answer = own[0] if len(own) == 1 else None
    else:
        answer = _loss_of_answer(prediction, decision, truth, loss_kind)
    return QueryLosses(models=audited | served, answer=answer)


def _audited(audit: Audit, truth: Label, loss_kind: str) -> dict[str, float]:
    packed = [answer for answer in audit.models if isinstance(answer.outputs, list)]
    plain = [answer for answer in audit.models if not isinstance(answer.outputs, list)]
    losses = dict.fromkeys(map(_ref, audit.missing), 1.0)
    losses |= {_ref(one): loss_of(loss_kind, truth.value, one.output) for one in plain}
    return losses | {_ref(one): loss_of_rows(loss_kind, truth.value, one.outputs) for one in packed}  # type: ignore[arg-type]


def _loss_of_answer(prediction: Prediction, decision: LoggedDecision, truth: Truth, loss_kind: str) -> float:
    if prediction.default and prediction.reason != LOW_CONFIDENCE:
        return 1.0
    if not isinstance(truth, Label):
        return truth.value
    compare = loss_of_rows if decision.several_rows else loss_of
    return compare(loss_kind, truth.value, decision.answer)


def _ref(one: ModelAnswer | Missing) -> str:
    return f"{one.model}:{one.version}"
