"""As in Clipper's figure 8: the best model breaks at a quarter of the queries and is repaired at half."""

import math
import random
from collections import deque
from collections.abc import Sequence

import pytest

from clipper_stream.feedback.update import LoggedDecision, fold
from clipper_stream.feedback.values import Label
from clipper_stream.selection.policies.exp3 import Exp3
from clipper_stream.selection.policies.exp4 import Exp4
from clipper_stream.selection.rng import query_rng
from clipper_stream.selection.state import SelectionState, merge

MODELS = ("best:1", "b:1", "c:1", "d:1", "e:1")
HEALTHY = (0.02, 0.06, 0.08, 0.10, 0.12)
BROKEN = (0.90, *HEALTHY[1:])
QUERIES, PARTITIONS, HALF_LIFE = 10_000, 4, 100.0
LATE = 50  # queries until the feedback about one arrives
STALE = 10  # queries until a router looks at the partitions' totals again


class SimulatedApplication:
    """Models that err at known rates, partitions that learn apart, feedback that is late.

    `run` serves queries one after the other; `shares` are those of the best model.
    """

    def __init__(self, policy, seed: int = 0) -> None:
        self.policy, self.seed, self.world = policy, seed, random.Random(seed)
        self.states = [SelectionState()] * PARTITIONS
        self.waiting: deque[tuple[int, LoggedDecision]] = deque()
        self.shares: list[float] = []

    def run(self, queries: int, error_rates: Sequence[float]) -> None:
        for _ in range(queries):
            if len(self.shares) % STALE == 0:
                self.prepared = self.policy.prepare(merge(self.states), MODELS)
            decision = self.prepared.select(query_rng(self.seed, f"0-{len(self.shares)}"))
            outputs = {model: int(self.world.random() < rate) for model, rate in zip(MODELS, error_rates, strict=True)}
            logged = LoggedDecision(
                outputs={model: outputs[model] for model in decision.models},
                propensities=dict(zip(decision.models, decision.propensities, strict=True)),
                served=decision.served,
                served_propensity=decision.served_propensity,
            )
            self.waiting.append((self.world.randrange(PARTITIONS), logged))
            self.shares.append(self.prepared.weights["best:1"])
            if len(self.waiting) > LATE:
                partition, late = self.waiting.popleft()
                self.states[partition] = fold(self.states[partition], late, Label(0), self.policy, "zero_one").state

    def lead(self) -> float:
        """Excess loss by which the best model leads the next best one (or trails, below 0)."""
        weights = self.policy.weights(merge(self.states), MODELS)
        return math.log(weights.pop("best:1") / max(weights.values())) / self.policy.eta

    def share(self, start: int, stop: int) -> float:
        return sum(self.shares[start:stop]) / (stop - start)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
@pytest.mark.parametrize(
    "policy", [Exp3(eta=0.2, half_life=HALF_LIFE), Exp4(half_life=HALF_LIFE)], ids=["exp3", "exp4"]
)
def test_queries_leave_a_broken_model_and_come_back_to_a_repaired_one(policy, seed):
    application = SimulatedApplication(policy, seed)
    application.run(QUERIES // 4, HEALTHY)
    assert application.share(QUERIES // 8, QUERIES // 4) > 0.5

    # Below a tenth of the weight it has to fall behind another model by log(9) / eta. It gets there at 0.9 - 0.12 a
    # feedback at least, on average, from the lead it has now; allow four standard deviations of that many losses.
    needed = (application.lead() + math.log(9.0) / policy.eta) / (0.90 - 0.12)
    spread = 4.0 * math.sqrt(needed * (0.90 * 0.10 + 0.12 * 0.88) / 0.5) / (0.90 - 0.12)
    diverted = QUERIES // 4 + math.ceil(LATE + STALE + needed + spread)
    application.run(QUERIES // 4, BROKEN)
    assert application.shares[diverted] < 0.1

    # What it is behind now halves with every half-life of all partitions, and stops to matter below one loss.
    behind = -application.lead()
    assert behind > 0.0
    returned = QUERIES // 2 + math.ceil(LATE + STALE + PARTITIONS * HALF_LIFE * math.log2(max(behind, 2.0)))
    application.run(QUERIES // 2, HEALTHY)
    assert returned < QUERIES - 1_000
    assert application.share(returned, QUERIES) > 0.5


@pytest.mark.parametrize("policy", [Exp3(eta=0.2), Exp4()], ids=["exp3", "exp4"])
def test_without_forgetting_a_repaired_model_waits_as_long_as_it_was_broken(policy):
    application = SimulatedApplication(policy)
    for error_rates in (HEALTHY, BROKEN, HEALTHY, HEALTHY):
        application.run(QUERIES // 4, error_rates)
    assert application.share(QUERIES - 1_000, QUERIES) < 0.1
