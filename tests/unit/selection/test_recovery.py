"""As in Clipper's figure 8: the best model breaks at a quarter of the queries and is repaired at half."""

import math

import pytest
from builders.bandits import queries_of

from clipper_stream.selection.policies.exp3 import Exp3
from clipper_stream.selection.policies.exp4 import Exp4

HEALTHY = {"best:1": 0.02, "b:1": 0.06, "c:1": 0.08, "d:1": 0.10, "e:1": 0.12}
BROKEN = HEALTHY | {"best:1": 0.90}
MODELS, QUERIES, HALF_LIFE = [*HEALTHY], 10_000, 400.0


def run(policy, error, queries, seed, state=None):
    """The share of the best model after each query, and what is learned in the end."""
    states = [state for _, state in queries_of(policy, error, queries, seed, state)]
    return [policy.weights(state, MODELS)["best:1"] for state in states], states[-1]


def lead(policy, state) -> float:
    """Excess loss by which the best model leads the next best one (or trails, below 0)."""
    weights = policy.weights(state, MODELS)
    return math.log(weights.pop("best:1") / max(weights.values())) / policy.eta


def mean(shares) -> float:
    return sum(shares) / len(shares)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
@pytest.mark.parametrize(
    "policy", [Exp3(eta=0.2, half_life=HALF_LIFE), Exp4(half_life=HALF_LIFE)], ids=["exp3", "exp4"]
)
def test_queries_leave_a_broken_model_and_come_back_to_a_repaired_one(policy, seed):
    shares, state = run(policy, HEALTHY, QUERIES // 4, seed)
    assert mean(shares[QUERIES // 8 :]) > 0.5

    # Below a tenth of the weight it has to fall behind another model by log(9) / eta. It gets there at 0.9 - 0.12 a
    # feedback at least, on average, from the lead it has now; allow four standard deviations of that many losses.
    needed = (lead(policy, state) + math.log(9.0) / policy.eta) / (0.90 - 0.12)
    spread = 4.0 * math.sqrt(needed * (0.90 * 0.10 + 0.12 * 0.88) / 0.5) / (0.90 - 0.12)
    shares, state = run(policy, BROKEN, QUERIES // 4, seed, state)
    assert shares[math.ceil(needed + spread)] < 0.1

    # What it is behind now halves with every half-life, and stops to matter below one loss.
    behind = -lead(policy, state)
    assert behind > 0.0
    returned = math.ceil(HALF_LIFE * math.log2(max(behind, 2.0)))
    assert returned < QUERIES // 2 - 1_000
    shares, _ = run(policy, HEALTHY, QUERIES // 2, seed, state)
    assert mean(shares[returned:]) > 0.5


@pytest.mark.parametrize("policy", [Exp3(eta=0.2), Exp4()], ids=["exp3", "exp4"])
def test_without_forgetting_a_repaired_model_waits_as_long_as_it_was_broken(policy):
    state = None
    for error in (HEALTHY, BROKEN, HEALTHY):
        shares, state = run(policy, error, 1_000, 0, state)
    assert mean(shares[-400:]) < 0.1
