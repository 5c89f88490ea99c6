"""Exp3 is the paper's."""

import math

import pytest

from clipper_stream.selection.policies.exp3 import Exp3
from clipper_stream.selection.state import ModelTotals, SelectionState


def test_exp3_weighs_like_the_paper_where_all_models_have_the_same_history():
    state = SelectionState({"a:1": ModelTotals(9.0, 3.0, 50.0, 12.0), "b:1": ModelTotals(30.0, 3.0, 50.0, 7.0)})
    expected = math.exp(-0.2 * 12.0) / (math.exp(-0.2 * 12.0) + math.exp(-0.2 * 7.0))
    weights = Exp3(eta=0.2).weights(state, ["a:1", "b:1"])
    assert weights["a:1"] == pytest.approx(expected, rel=1e-9)


def test_exp3_divides_the_loss_by_the_logged_propensity():
    state = Exp3().observe(SelectionState(), {"a:1": 0.5}, {"a:1": 0.125})
    assert state.of("a:1") == ModelTotals(1.0, 0.5, 8.0, 4.0)
