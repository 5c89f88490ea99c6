"""UCB1 asks whom it knows least, until it knows enough."""

import math

import pytest
from builders.bandits import queries_of, regret_of

from clipper_stream.selection.policies.ucb1 import UCB1
from clipper_stream.selection.state import ModelTotals, SelectionState

MEANS = {"a:1": 0.3, "b:1": 0.1, "c:1": 0.5}


def test_every_model_is_asked_once_before_any_is_asked_again():
    asked = [max(shares, key=shares.__getitem__) for shares, _ in queries_of(UCB1(exploration=0.0), MEANS, 3, seed=1)]
    assert asked == list(MEANS)


def test_the_least_lower_bound_wins_not_the_least_mean():
    state = SelectionState({"a:1": ModelTotals(1_000.0, 100.0), "b:1": ModelTotals(10.0, 4.0)})
    bounds = {"a:1": 0.1 - math.sqrt(2 * math.log(1_010) / 1_000), "b:1": 0.4 - math.sqrt(2 * math.log(1_010) / 10)}
    assert bounds["b:1"] < bounds["a:1"]
    assert UCB1(exploration=0.0).weights(state, ["a:1", "b:1"]) == {"a:1": 0.0, "b:1": 1.0}


def test_without_padding_the_least_mean_wins():
    state = SelectionState({"a:1": ModelTotals(1_000.0, 100.0), "b:1": ModelTotals(10.0, 4.0)})
    assert UCB1(padding=0.0, exploration=0.0).weights(state, ["a:1", "b:1"]) == {"a:1": 1.0, "b:1": 0.0}


def test_every_model_keeps_its_share_of_the_exploration():
    state = SelectionState({"a:1": ModelTotals(1e6, 1e5), "b:1": ModelTotals(1e6, 9e5)})
    decisions = UCB1(exploration=0.1).prepare(state, ["a:1", "b:1"]).decisions
    assert {one.served[0]: one.served_propensity for one in decisions} == pytest.approx({"a:1": 0.95, "b:1": 0.05})


def test_with_a_half_life_a_repaired_model_is_asked_again():
    policy = UCB1(padding=0.5, exploration=0.0, half_life=100.0)
    *_, (_, learned) = queries_of(policy, {"a:1": 0.9, "b:1": 0.3}, 1_000, seed=2)
    later = [shares["a:1"] for shares, _ in queries_of(policy, {"a:1": 0.0, "b:1": 0.3}, 2_000, 3, learned)]
    assert sum(later[-500:]) / 500 > 0.8


@pytest.mark.parametrize("seed", range(5))
def test_regret_stays_within_the_bound_of_the_paper(seed):
    """Theorem 1 of Auer et al. 2002 bounds the expectation; a run deviates much less than it is wide."""
    gaps = [mean - 0.1 for mean in MEANS.values() if mean > 0.1]
    bound = sum(8.0 * math.log(3_000) / gap for gap in gaps) + (1.0 + math.pi**2 / 3.0) * sum(gaps)
    assert regret_of(UCB1(exploration=0.0), MEANS, 3_000, seed) <= bound
