"""Exp3 is the paper's; Exp3-IX divides by more than the propensity, so that no single loss decides."""

import math

import pytest

from clipper_stream.selection.policies.exp3 import Exp3, Exp3IX
from clipper_stream.selection.state import ModelTotals, SelectionState

LOG = [("a:1", 1.0, 0.5), ("b:1", 0.25, 0.3), ("c:1", 1.0, 0.01), ("b:1", 0.0, 0.2), ("a:1", 0.5, 0.9)]


def test_exp3_weighs_like_the_paper_where_all_models_have_the_same_history():
    state = SelectionState({"a:1": ModelTotals(9.0, 3.0, 50.0, 12.0), "b:1": ModelTotals(30.0, 3.0, 50.0, 7.0)})
    expected = math.exp(-0.2 * 12.0) / (math.exp(-0.2 * 12.0) + math.exp(-0.2 * 7.0))
    weights = Exp3(eta=0.2).weights(state, ["a:1", "b:1"])
    assert weights["a:1"] == pytest.approx(expected, rel=1e-9)


def test_exp3_divides_the_loss_by_the_logged_propensity():
    state = Exp3().observe(SelectionState(), {"a:1": 0.5}, {"a:1": 0.125})
    assert state.of("a:1") == ModelTotals(1.0, 0.5, 8.0, 4.0)


def test_ix_weighs_like_its_paper_where_all_models_have_the_same_count():
    policy, state = Exp3IX(eta=0.3, gamma=0.2), SelectionState()
    for model, loss, propensity in [("a:1", 1.0, 0.5), ("b:1", 0.25, 0.5), ("a:1", 0.5, 0.25), ("b:1", 1.0, 0.25)]:
        state = policy.observe(state, {model: loss}, {model: propensity})
    estimates = {"a:1": 1.0 / 0.7 + 0.5 / 0.45, "b:1": 0.25 / 0.7 + 1.0 / 0.45}
    parts = {model: math.exp(-0.3 * estimate) for model, estimate in estimates.items()}
    expected = {model: part / sum(parts.values()) for model, part in parts.items()}
    assert policy.weights(state, ["a:1", "b:1"]) == pytest.approx(expected, rel=1e-9)


def test_with_ix_no_single_loss_counts_more_than_one_over_gamma():
    state = Exp3IX(gamma=0.05).observe(SelectionState(), {"a:1": 1.0}, {"a:1": 1e-12})
    assert state.of("a:1").weighted_loss <= 20.0
    assert state.of("a:1").weighted_count <= 20.0


@pytest.mark.parametrize("loss", [0.0, 1.0])
def test_one_loss_of_a_seldom_asked_model_moves_its_weight_by_the_bound_at_most(loss):
    """By exp(eta / gamma) at most, whatever par is, and not upwards when the model was wrong."""
    policy = Exp3IX(eta=0.02, gamma=0.01)
    rare = 0.2 * 5_000.0 + math.log(1e4) / policy.eta  # as much behind as makes the weight 0.0001
    state = SelectionState(
        {"a:1": ModelTotals(5_000.0, 1_000.0, 5_000.0, 1_000.0), "b:1": ModelTotals(900.0, 300.0, 5_000.0, rare)}
    )
    before = policy.weights(state, ["a:1", "b:1"])["b:1"]
    after = policy.weights(policy.observe(state, {"b:1": loss}, {"b:1": before}), ["a:1", "b:1"])["b:1"]
    assert before == pytest.approx(1e-4, rel=0.1)
    assert before / math.exp(2.1) <= after <= before * (1.0 if loss else math.exp(2.1))


def test_ix_without_gamma_learns_as_exp3_does():
    ix, exp3 = SelectionState(), SelectionState()
    for model, loss, propensity in LOG:
        ix = Exp3IX(gamma=0.0).observe(ix, {model: loss}, {model: propensity})
        exp3 = Exp3().observe(exp3, {model: loss}, {model: propensity})
    assert ix == exp3
