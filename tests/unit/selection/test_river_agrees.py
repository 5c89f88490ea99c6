"""Where river has the same algorithm, it makes the same choices as often, from the same rewards."""

import math
from collections import Counter

import pytest

from clipper_stream.selection.policies.thompson import Thompson
from clipper_stream.selection.state import ModelTotals, SelectionState

MODELS = ("a:1", "b:1", "c:1")

bandit = pytest.importorskip("river.bandit", reason="the extra drift is not installed")
proba = pytest.importorskip("river.proba", reason="the extra drift is not installed")


def test_thompson_asks_as_often_as_river_draws():
    """Both begin at Beta(1, 1) where the average of means is a half."""
    errors, asked = {"a:1": (12, 30), "b:1": (15, 30), "c:1": (18, 30)}, 20_000
    theirs = bandit.ThompsonSampling(reward_obj=proba.Beta(1, 1), seed=4)
    for model, (wrong, count) in errors.items():
        for number in range(count):
            theirs.update(model, number >= wrong)
    state = SelectionState({model: ModelTotals(float(count), float(wrong)) for model, (wrong, count) in errors.items()})
    drawn = Counter(theirs.pull(list(MODELS)) for _ in range(asked))
    for model, chance in Thompson().weights(state, MODELS).items():
        # five standard deviations of a binomial, and the worst error of the integral
        assert abs(drawn[model] - asked * chance) <= 5.0 * math.sqrt(asked * chance * (1.0 - chance)) + asked * 1e-4
