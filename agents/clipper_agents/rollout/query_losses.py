"""What one query with its feedback says about versions: the loss of each that was asked, and that of the answer.

Rules of this file:
- A model is scored by `clipper_stream.feedback.update.score`, for its prediction and for its audit alike.
- A model that was asked and did not answer has a loss of 1 where others are scored by a label, and so has one whose
  output has another form than the label: it must not gain by it.
- The answer is what the application's models answered. Where a canary answered instead, it is what the audit says that
  the policy's own choice said, if that was one model; of several nobody wrote down what they would have agreed on.
- A default because nobody answered has a loss of 1. One because the models agreed too little is an answer.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clipper_agents.router.feedback_step import decision_of, truth_of
from clipper_agents.router.prediction_records import NAMED
from clipper_stream.errors import InvalidLabel
from clipper_stream.feedback.losses import loss_of, loss_of_rows
from clipper_stream.feedback.update import LoggedDecision, score
from clipper_stream.feedback.values import Label, Truth
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
        silent: Versions that were asked and did not answer.
    """

    models: Mapping[str, float]
    answer: float | None
    silent: frozenset[str] = frozenset()


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
        InvalidLabel: the label cannot be compared with any output, or not with the answer.
    """
    truth, decision = truth_of(feedback), decision_of(prediction)
    if isinstance(truth, Label):
        models = _by_label(prediction, audit, decision, truth, loss_kind)
    else:
        models = dict(score(decision, truth, loss_kind).losses)
    silent = frozenset(map(_ref, [*prediction.missing, *(audit.missing if audit is not None else ())]))
    if any(ref not in candidates for ref in decision.served):
        own = [models[ref] for ref in _audited(audit) if ref in candidates and ref in models]
        return QueryLosses(models=models, answer=own[0] if len(own) == 1 else None, silent=silent)
    answer = _loss_of_answer(prediction, decision, truth, loss_kind)
    return QueryLosses(models=models, answer=answer, silent=silent)


def answered(prediction: Prediction, audit: Audit | None) -> list[str]:
    """The versions that answered, in the order of the records, each once."""
    answers = [*prediction.models, *(audit.models if audit is not None else ())]
    return list(dict.fromkeys(map(_ref, answers)))


def _by_label(
    prediction: Prediction, audit: Audit | None, decision: LoggedDecision, truth: Label, loss_kind: str
) -> dict[str, float]:
    """Losses of all that were asked; 1 of one whose output cannot be compared with a label that fits another's."""
    found: dict[str, float] = {}
    unlike: dict[str, InvalidLabel] = {}
    for ref, one in _answers(prediction, decision, audit):
        try:
            found |= score(one, truth, loss_kind).losses
        except InvalidLabel as error:
            unlike[ref] = error
    if unlike and not found:
        raise next(iter(unlike.values()))
    missing = [*prediction.missing, *(audit.missing if audit is not None else ())]
    return dict.fromkeys([*unlike, *map(_ref, missing)], 1.0) | found


def _answers(
    prediction: Prediction, decision: LoggedDecision, audit: Audit | None
) -> Iterator[tuple[str, LoggedDecision]]:
    """One decision an answer, so that one that cannot be compared leaves the others as they are."""
    for answer in [*prediction.models, *(audit.models if audit is not None else ())]:
        ref = _ref(answer)
        output = _rows(answer) if decision.several_rows else answer.output
        propensities = {ref: answer.propensity}
        yield (
            ref,
            LoggedDecision(
                outputs={ref: output}, propensities=propensities, served=(ref,), several_rows=decision.several_rows
            ),
        )


def _rows(answer: ModelAnswer) -> list[Any]:
    return answer.outputs if isinstance(answer.outputs, list) else []


def _audited(audit: Audit | None) -> list[str]:
    asked: list[ModelAnswer | Missing] = [] if audit is None else [*audit.models, *audit.missing]
    return [_ref(one) for one in asked]


def _loss_of_answer(prediction: Prediction, decision: LoggedDecision, truth: Truth, loss_kind: str) -> float:
    if prediction.default and prediction.reason != LOW_CONFIDENCE:
        return 1.0
    if not isinstance(truth, Label):
        return truth.value
    compare = loss_of_rows if decision.several_rows else loss_of
    return compare(loss_kind, truth.value, decision.answer)


def _ref(one: ModelAnswer | Missing) -> str:
    return f"{one.model}:{one.version}"
