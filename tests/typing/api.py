"""The library's public interface as its users write it: type-checked, never run."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from clipper_stream.combining.combiner import Combined, combine
from clipper_stream.feedback.update import (
    FeedbackValue,
    GivenLoss,
    Label,
    LoggedDecision,
    Scores,
    fold,
    loss_of,
    loss_of_rows,
    score,
)
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.query.inputs import Rows, to_matrix, to_rows
from clipper_stream.selection.distribution import audited, forced_decision, one_of
from clipper_stream.selection.policy import ActionDistribution, Decision, SelectionPolicy
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.rng import RandomSource, query_rng
from clipper_stream.selection.state import ModelTotals, SelectionState, merge

# selection
policy: SelectionPolicy = make_policy("exp3", {"eta": 0.2, "half_life": 100})
policy_name: str = policy.name
rng: RandomSource = query_rng(7, "3-41")
other_rng: RandomSource = random.Random(7)
state: SelectionState = merge([SelectionState(), SelectionState({"svm:1": ModelTotals()})])
totals: ModelTotals = state.of("svm:1")
prepared: ActionDistribution = audited(policy.prepare(state, ["svm:1", "knn:1"]), 0.01)
decision: Decision = prepared.select(rng)
same_decision: Decision = policy.select(state, ("svm:1", "knn:1"), other_rng)
asked: tuple[str, ...] = decision.models
audited_only: tuple[str, ...] = decision.split()[1].models
weights: dict[str, float] = policy.weights(state, ["svm:1"])
state = policy.observe(state, {"svm:1": 0.5}, {"svm:1": 0.25})
forced: Decision = forced_decision(["svm:1"])


# a policy of one's own: a name, `prepare` and `observe`
@dataclass(frozen=True)
class Newest(SelectionPolicy):
    name: ClassVar[str] = "newest"

    def prepare(self, state: SelectionState, candidates: Sequence[str]) -> ActionDistribution:
        chances = {model: float(model == candidates[-1]) for model in candidates}
        return one_of(chances, chances.values())

    def observe(
        self, state: SelectionState, losses: Mapping[str, float], propensities: Mapping[str, float]
    ) -> SelectionState:
        return state


own: SelectionPolicy = Newest()

# combining
combined: Combined = combine("vote", {"svm:1": 3}, weights, asked=2)
answer: Any = combined.output
confidence: float = combined.confidence

# feedback
logged = LoggedDecision(outputs={"svm:1": 3}, propensities={"svm:1": 0.25}, served=("svm:1",), answer=3)
truths: list[FeedbackValue] = [Label("cat"), GivenLoss(0.5), GivenLoss.of_reward(0.5)]
scores: Scores = score(logged, truths[0], "zero_one")
next_state: SelectionState = fold(state, logged, truths[0], policy, "zero_one")
loss: float = loss_of("absolute", 0.5, 0.25) + loss_of_rows("zero_one", [1, 2], [1, 3])

# inputs
spec = RowSpec("float32", (64,))
rows: Rows = to_rows(spec, [[0.0] * 64])
reasons: list[str] = [str(error) for error in rows.failed.values()]
count: int = len(to_matrix(spec, [[0.0] * 64]))
