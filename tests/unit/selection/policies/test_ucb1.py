"""UCB1 asks whom it knows least, until it knows enough."""

import math

from clipper_stream.selection.policies.ucb1 import UCB1
from clipper_stream.selection.state import ModelTotals, SelectionState

MEANS = {"a:1": 0.3, "b:1": 0.1, "c:1": 0.5}


def test_the_least_lower_bound_wins_and_without_padding_the_least_mean():
    state = SelectionState({"a:1": ModelTotals(1_000.0, 100.0), "b:1": ModelTotals(10.0, 4.0)})
    bounds = {"a:1": 0.1 - math.sqrt(2 * math.log(1_010) / 1_000), "b:1": 0.4 - math.sqrt(2 * math.log(1_010) / 10)}
    assert bounds["b:1"] < bounds["a:1"]
    assert UCB1(exploration=0.0).weights(state, ["a:1", "b:1"]) == {"a:1": 0.0, "b:1": 1.0}
    assert UCB1(padding=0.0, exploration=0.0).weights(state, ["a:1", "b:1"]) == {"a:1": 1.0, "b:1": 0.0}
