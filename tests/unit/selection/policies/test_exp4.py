"""Exp4 is Hedge; as Clipper had it, it divides by the weights, and is worse for it."""

import math
import random

import pytest

from clipper_stream.selection.policies.exp4 import Exp4, Exp4Clipper
from clipper_stream.selection.state import SelectionState

MODELS = ("a:1", "b:1", "c:1")
BOTH = {"a:1": 1.0, "b:1": 1.0}


def test_exp4_is_hedge_where_every_model_answers_every_feedback():
    policy, state = Exp4(eta=0.5), SelectionState()
    losses = [{"a:1": 1.0, "b:1": 0.0}, {"a:1": 0.25, "b:1": 1.0}, {"a:1": 1.0, "b:1": 0.0}]
    for loss in losses:
        state = policy.observe(state, loss, BOTH)
    expected = math.exp(-0.5 * 2.25) / (math.exp(-0.5 * 2.25) + math.exp(-0.5 * 1.0))
    assert policy.weights(state, ["a:1", "b:1"])["a:1"] == pytest.approx(expected, rel=1e-9)


def test_clippers_weights_are_those_of_the_rule_as_it_is_written():
    world, policy, state = random.Random(1), Exp4Clipper(eta=0.02), SelectionState()
    weights = dict.fromkeys(MODELS, 1.0)
    for _ in range(40):
        loss = {model: world.choice((0.0, 0.3, 1.0)) for model in MODELS}
        state = policy.observe(state, loss, dict.fromkeys(MODELS, 1.0))
        total = sum(weights.values())
        weights = {model: w * math.exp(-0.02 * loss[model] / (w / total)) for model, w in weights.items()}
    expected = {model: weight / sum(weights.values()) for model, weight in weights.items()}
    assert policy.weights(state, MODELS) == pytest.approx(expected, rel=1e-6)


def test_a_model_without_weight_keeps_its_sums_finite():
    policy, state = Exp4Clipper(eta=1.0), SelectionState()
    for _ in range(1_000):
        state = policy.observe(state, {"a:1": 1.0, "b:1": 0.0}, BOTH)
    assert math.isfinite(state.of("a:1").weighted_loss)
    assert policy.weights(state, MODELS[:2])["b:1"] == pytest.approx(1.0)
