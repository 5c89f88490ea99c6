"""Exp4 as Clipper had it divides by the weights, and is worse for it."""

import math
import random

import pytest

from clipper_stream.selection.policies.exp4 import Exp4, Exp4Clipper
from clipper_stream.selection.state import SelectionState

MODELS = ("a:1", "b:1", "c:1")
ALL_ASKED = dict.fromkeys(MODELS, 1.0)


def by_the_original(losses, eta):
    """The rule as it is written, on the weights themselves."""
    weights = dict.fromkeys(MODELS, 1.0)
    for loss in losses:
        total = sum(weights.values())
        weights = {m: w * math.exp(-eta * loss[m] / (w / total)) for m, w in weights.items()}
    return {model: weight / sum(weights.values()) for model, weight in weights.items()}


def test_the_weights_are_those_of_the_original():
    world, policy, state = random.Random(1), Exp4Clipper(eta=0.02), SelectionState()
    losses = [{model: world.choice((0.0, 0.3, 1.0)) for model in MODELS} for _ in range(40)]
    for loss in losses:
        state = policy.observe(state, loss, ALL_ASKED)
    assert policy.weights(state, MODELS) == pytest.approx(by_the_original(losses, 0.02), rel=1e-6)


def test_a_model_of_a_tenth_of_the_weight_pays_ten_times_for_a_mistake():
    policy, state = Exp4Clipper(eta=0.1), SelectionState()
    while policy.weights(state, MODELS[:2])["a:1"] > 0.1:
        state = policy.observe(state, {"a:1": 1.0, "b:1": 0.0}, {"a:1": 1.0, "b:1": 1.0})
    share, before = policy.weights(state, MODELS[:2])["a:1"], state.of("a:1").weighted_loss
    charged = policy.observe(state, {"a:1": 1.0, "b:1": 1.0}, {"a:1": 1.0, "b:1": 1.0}).of("a:1").weighted_loss - before
    assert charged == pytest.approx(1.0 / share, rel=1e-9)
    assert charged >= 10.0


def test_a_repaired_model_comes_back_under_exp4_and_not_under_the_original():
    bad, good = {"a:1": 1.0, "b:1": 0.0}, {"a:1": 0.0, "b:1": 1.0}
    count_answered = {}
    for policy in (Exp4(), Exp4Clipper()):
        state = SelectionState()
        for loss in [bad] * 100 + [good] * 200:
            state = policy.observe(state, loss, {"a:1": 1.0, "b:1": 1.0})
        count_answered[policy.name] = policy.weights(state, MODELS[:2])["a:1"] > 0.5
    assert count_answered == {"exp4": True, "exp4_clipper": False}


def test_a_model_without_weight_keeps_its_sums_finite():
    policy, state = Exp4Clipper(eta=1.0), SelectionState()
    for _ in range(1_000):
        state = policy.observe(state, {"a:1": 1.0, "b:1": 0.0}, {"a:1": 1.0, "b:1": 1.0})
    assert math.isfinite(state.of("a:1").weighted_loss)
    assert policy.weights(state, MODELS[:2])["b:1"] == pytest.approx(1.0)
