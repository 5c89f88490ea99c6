"""What one query with its feedback says about versions: the loss of each that was asked, and that of the answer.

Rules of this file:
- A version is scored by the learning step's own `score`, for its prediction and for its audit alike.
- A version that was asked and did not answer is named as silent: whoever compares versions leaves it out.
- The answer is what the application's models answered. Where a canary answered instead, it is what the policy's own
  choice said, if that was one model; of several nobody wrote down what they would have agreed on.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from clipper_stream.errors import InvalidLabel
from clipper_stream.feedback.update import (
    FeedbackValue,
    Label,
    LoggedDecision,
    answer_loss,
    differences,
    same,
    scale_of,
    score,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLosses:
    """Losses in [0, 1] of each version that can be scored, and of what the application's models answered, if known.

    `chances` are the probabilities with which the versions' losses were to be known. Versions that were asked and did
    not answer are `silent`. `at_bound` is the share of each version's numbers whose loss stands at the bound, and
    `largest` the largest difference of all of them to the label. The `metrics` are those of the feedback.
    """

    models: Mapping[str, float]
    chances: Mapping[str, float]
    answer: float | None
    silent: frozenset[str] = frozenset()
    at_bound: Mapping[str, float] = field(default_factory=dict)
    answer_at_bound: float = 0.0
    largest: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)


def losses_of(
    decision: LoggedDecision, feedback: FeedbackValue, candidates: Collection[str], loss_kind: str
) -> QueryLosses:
    """Score one query for a comparison of versions; a version that was asked and is no candidate is on trial.

    Raises:
        InvalidLabel: as `score`; then the learner does not use the feedback either.
    """
    scores = score(decision, feedback, loss_kind)
    compared = compared_models(decision, candidates)
    answer = scores.losses.get(compared[0]) if len(compared) == 1 else None
    if compared == decision.served:
        answer = answer_loss(decision, feedback, loss_kind)
    found = QueryLosses(models=scores.losses, chances=scores.propensities, answer=answer, silent=decision.unanswered)
    scale = scale_of(loss_kind)
    if not isinstance(feedback, Label) or math.isinf(scale):
        return found
    misses = {ref: differences(feedback.value, output) for ref, output in decision.outputs.items()}
    of_answer = misses.get(compared[0], []) if len(compared) == 1 else differences(feedback.value, decision.answer)
    return replace(
        found,
        at_bound={ref: _reached(scale, each) for ref, each in misses.items()},
        answer_at_bound=_reached(scale, of_answer),
        largest=max((one for each in misses.values() for one in each if one < math.inf), default=0.0),
    )


def _reached(scale: float, found: Sequence[float]) -> float:
    return sum(one >= scale for one in found) / len(found) if found else 0.0


def compared_models(decision: LoggedDecision, candidates: Collection[str]) -> tuple[str, ...]:
    """The models whose answer a trial is compared with: who served, or was asked besides where a canary served."""
    if all(ref in candidates for ref in decision.served):
        return decision.served
    return tuple(ref for ref in decision.propensities if ref in candidates and ref not in decision.served)


def apart(decision: LoggedDecision, ref: str, compared: tuple[str, ...], loss_kind: str) -> float:
    """How far apart the losses of a version and of what it is compared with can be, whatever the label, in [0, 1]."""
    said, other = decision.outputs.get(ref), decision.answer
    if compared != decision.served:
        other = next(map(decision.outputs.get, compared), None)
    elif decision.default and not decision.low_confidence:  # of a row at least: `answer_loss` is 1 whatever the label
        return 1.0
    if said is None or other is None:
        return 1.0
    if loss_kind.startswith("squared"):
        return 0.0 if same(said, other) else 1.0
    try:
        return decision.compare(loss_kind, said, other)
    except InvalidLabel:
        return 1.0
