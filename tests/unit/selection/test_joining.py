"""A model with less history than others: one that joins, pauses, comes back, or does not answer."""

import math
import random

from clipper_stream.selection.policies.exp4 import Exp4
from clipper_stream.selection.state import SelectionState

OLD = ("a:1", "b:1")
ALL = (*OLD, "new:1")
EXP4 = Exp4()


def learned(policy, state, models, error, *, feedbacks, seed) -> SelectionState:
    world = random.Random(seed)
    for _ in range(feedbacks):
        losses = {model: float(world.random() < error[model]) for model in models}
        state = policy.observe(state, losses, dict.fromkeys(losses, 1.0))
    return state


def test_first_feedbacks_move_a_new_model_no_further_than_they_would_anybody():
    eta = 0.3
    state = learned(EXP4, SelectionState(), OLD, {"a:1": 0.05, "b:1": 0.2}, feedbacks=400, seed=1)
    before = Exp4(eta=eta).weights(state, ALL)
    for loss in (0.0, 1.0):
        after = Exp4(eta=eta).weights(EXP4.observe(state, {"new:1": loss}, {"new:1": 1.0}), ALL)
        moved = abs(math.log(after["new:1"] / before["new:1"]))
        assert moved <= eta


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
