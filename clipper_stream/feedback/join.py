"""The join of a prediction, its audit and a feedback: what was decided, and what is known about it now.

Rules of this file:
- Learners, the rollout controller and `replay verify` join by these functions; the vectorised export of the logs is
  held to them by a property test.
- Where prediction and audit name one model, the prediction counts: it is what was served. The audit then belongs to the
  decision of another router, which came second.
- An output that a record leaves out is null; in a query of several rows it is a list without rows.
"""

from typing import Any

from msgspec import UNSET

from clipper_stream.feedback.update import FeedbackValue, GivenLoss, Label, LoggedDecision
from clipper_topics.audit import Audit
from clipper_topics.feedback import Feedback
from clipper_topics.prediction import LOW_CONFIDENCE, NAMED, Missing, ModelAnswer, Prediction


def join(prediction: Prediction, audit: Audit | None = None) -> LoggedDecision:
    """The decision as the learning step reads it: who was asked for the answer or for the log, and what each said.

    >>> asked = ModelAnswer(model="svm", version="1", propensity=0.5, output=3)
    >>> join(Prediction(query_id="0-1", application="digits", output=3, models=[asked])).outputs
    {'svm:1': 3}
    """
    several_rows = prediction.outputs is not UNSET
    answer: Any = prediction.outputs if several_rows else prediction.output
    absent: Any = [] if several_rows else None
    asked = asked_models(prediction, audit)
    return LoggedDecision(
        outputs={
            ref: absent if (said := model.outputs if several_rows else model.output) is UNSET else said
            for ref, model in asked.items()
            if isinstance(model, ModelAnswer)
        },
        propensities={ref: model.propensity for ref, model in asked.items()},
        served=tuple(ref for ref, model in _asked(prediction).items() if model.served),
        served_propensity=prediction.served_propensity,
        answer=absent if answer is UNSET else answer,
        default=prediction.default,
        low_confidence=prediction.reason == LOW_CONFIDENCE,
        several_rows=several_rows,
        features=tuple(prediction.features),
        context=prediction.context,
        confidences={
            ref: model.confidence
            for ref, model in asked.items()
            if isinstance(model, ModelAnswer) and model.confidence is not None
        },
    )


def asked_models(prediction: Prediction, audit: Audit | None = None) -> dict[str, ModelAnswer | Missing]:
    """What the records of a query have of each version that was asked, as `name:version`."""
    decided = _asked(prediction)
    return decided if audit is None else decided | _asked(audit) | decided


def feedback_value(feedback: Feedback) -> FeedbackValue:
    """The label, or the loss of the answer, that a feedback gives; it was checked by `check_feedback`."""
    if feedback.loss is not None:
        return GivenLoss(float(feedback.loss))
    return Label(feedback.label) if feedback.reward is None else GivenLoss.of_reward(float(feedback.reward))


def disagreement(feedback: Feedback, prediction: Prediction) -> str | None:
    """Why a feedback cannot be about the decision of its application, and what to do; None when the context agrees."""
    said, decided = feedback.context, prediction.context
    if said is None or said == decided:
        return None
    return f"context is {said!r}, but query {feedback.query_id!r} was about {decided!r}: correct it or leave it out"


def is_policy_choice(prediction: Prediction) -> bool:
    """Whether a policy chose the models: an application that names its models chooses the queries as well."""
    return prediction.policy is not None and prediction.policy.name != NAMED


def _asked(record: Prediction | Audit) -> dict[str, ModelAnswer | Missing]:
    asked: list[ModelAnswer | Missing] = [*record.models, *record.missing]
    return {f"{model.model}:{model.version}": model for model in asked}
