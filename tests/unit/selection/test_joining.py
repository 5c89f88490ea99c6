"""A model with less history than others: one that joins, pauses, comes back, or does not answer."""

import math
import random

import pytest

from clipper_stream.selection.policies.exp4 import Exp4
from clipper_stream.selection.policies.exponential_weights import par
from clipper_stream.selection.state import ModelTotals, SelectionState, merge

OLD = ("a:1", "b:1")
ALL = (*OLD, "new:1")
EXP4 = Exp4()


def learned(policy, state, models, error, *, feedbacks, seed) -> SelectionState:
    world = random.Random(seed)
    for _ in range(feedbacks):
        losses = {model: float(world.random() < error[model]) for model in models}
        state = policy.observe(state, losses, dict.fromkeys(losses, 1.0))
    return state


def test_par_is_the_loss_per_feedback_whose_weight_is_the_mean():
    known = [ModelTotals(0, 0, 100.0, 10.0), ModelTotals(0, 0, 110.0, 30.0), ModelTotals(0, 0, 90.0, 60.0)]
    level = par(0.3, known)
    mean = sum(math.exp(-0.3 * (totals.weighted_loss - level * totals.weighted_count)) for totals in known) / 3
    assert mean == pytest.approx(1.0, rel=1e-9)


def test_first_feedbacks_move_a_new_model_no_further_than_they_would_anybody():
    eta = 0.3
    state = learned(EXP4, SelectionState(), OLD, {"a:1": 0.05, "b:1": 0.2}, feedbacks=400, seed=1)
    before = Exp4(eta=eta).weights(state, ALL)
    for loss in (0.0, 1.0):
        after = Exp4(eta=eta).weights(EXP4.observe(state, {"new:1": loss}, {"new:1": 1.0}), ALL)
        moved = abs(math.log(after["new:1"] / before["new:1"]))
        assert moved <= eta


@pytest.mark.parametrize(("loss", "feedbacks", "low", "high"), [(0.02, 300, 0.9, 1.0), (0.4, 100, 0.0, 0.01)])
def test_a_newcomer_takes_over_or_is_found_out_without_the_time_the_others_had(loss, feedbacks, low, high):
    error = {"a:1": 0.1, "b:1": 0.3, "new:1": loss}
    state = learned(EXP4, SelectionState(), OLD, error, feedbacks=10_000, seed=2)
    assert EXP4.weights(state, ALL)["new:1"] == pytest.approx(1 / 3, abs=1e-6)
    state = learned(EXP4, state, ALL, error, feedbacks=feedbacks, seed=3)
    assert low <= EXP4.weights(state, ALL)["new:1"] <= high


def test_joining_is_the_same_whether_partitions_learned_apart_or_not():
    error = {"a:1": 0.1, "b:1": 0.3, "new:1": 0.2}
    parts = [learned(EXP4, SelectionState(), OLD, error, feedbacks=250, seed=seed) for seed in range(4)]
    parts[0] = learned(EXP4, parts[0], ALL, error, feedbacks=10, seed=9)  # the other partitions have not heard of it
    level = EXP4.weights(merge(parts), ALL)
    assert level["b:1"] < level["new:1"] < level["a:1"]


def test_a_model_that_comes_back_after_a_rollback_does_not_gain_by_its_absence():
    error = {"a:1": 0.1, "b:1": 0.05}
    state = learned(EXP4, SelectionState(), OLD, error, feedbacks=500, seed=6)
    state = learned(EXP4, state, ["b:1"], error, feedbacks=5_000, seed=7)
    assert EXP4.weights(state, OLD)["b:1"] > 0.9


def test_a_model_that_often_fails_to_answer_an_ensemble_does_not_gain_by_it():
    world, state = random.Random(8), SelectionState()
    for _ in range(2_000):
        losses = {"a:1": float(world.random() < 0.1)}
        if world.random() < 0.2:
            losses["b:1"] = float(world.random() < 0.3)
        state = EXP4.observe(state, losses, dict.fromkeys(losses, 1.0))
    assert state.of("a:1").weighted_loss > state.of("b:1").weighted_loss
    assert EXP4.weights(state, OLD)["a:1"] > 0.9
