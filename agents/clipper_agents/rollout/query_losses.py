"""What one query with its feedback says about versions: the loss of each that was asked, and that of the answer.

Rules of this file:
- A version is scored by the learning step's own `score`, for its prediction and for its audit alike.
- A version that was asked and did not answer has a loss of 1 where others are scored by a label: it must not gain by
  silence.
- The answer is what the application's models answered. Where a canary answered instead, it is what the policy's own
  choice said, if that was one model; of several nobody wrote down what they would have agreed on.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from clipper_stream.feedback.update import LoggedDecision, answer_loss, score
from clipper_stream.feedback.values import FeedbackValue, Label


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLosses:
    """Losses in [0, 1] of each version that can be scored, and of what the application's models answered, if known.

    Versions that were asked and did not answer are `silent`.
    """

    models: Mapping[str, float]
    answer: float | None
    silent: frozenset[str] = frozenset()


def losses_of(
    decision: LoggedDecision, feedback: FeedbackValue, candidates: Collection[str], loss_kind: str
) -> QueryLosses:
    """Score one query for a comparison of versions; a version that was asked and is no candidate is on trial.

    Raises:
        InvalidLabel: as `score`; then the learner does not use the feedback either.
    """
    models = dict(score(decision, feedback, loss_kind).losses)
    if isinstance(feedback, Label):
        models |= dict.fromkeys(decision.unanswered, 1.0)
    if all(ref in candidates for ref in decision.served):
        answer = answer_loss(decision, feedback, loss_kind)
    else:
        beside = [ref for ref in decision.propensities if ref in candidates and ref not in decision.served]
        own = [models[ref] for ref in beside if ref in models]
        answer = own[0] if len(own) == 1 else None
    return QueryLosses(models=models, answer=answer, silent=decision.unanswered)
