"""Thompson sampling with probabilities that are integrated, not drawn."""

import math

import numpy as np
import pytest

from clipper_stream.selection.policies.thompson import Thompson, best_arm_probabilities, posteriors
from clipper_stream.selection.state import ModelTotals, SelectionState

STATE = SelectionState({"a:1": ModelTotals(40.0, 6.0), "b:1": ModelTotals(25.0, 5.0), "c:1": ModelTotals(9.0, 1.0)})


@pytest.mark.parametrize(
    ("alphas", "betas"),
    [
        ([0.5, 0.5], [0.5, 1.5]),
        ([1.7, 3.2, 20.0], [4.0, 8.0, 80.0]),
        ([20_001.0, 0.7], [980_000.0, 1.3]),
        ([1e6, 1e6 + 3e3], [1e6, 1e6 - 3e3]),
        ([0.6, 0.6, 0.6], [1.5, 1e6, 2e3]),
        ([3.0] * 20, [7.0] * 20),
    ],
)
def test_the_integral_is_how_often_each_draw_is_the_least(alphas, betas):
    draws, rng = 200_000, np.random.default_rng(5)
    least = np.stack([rng.beta(a, b, draws) for a, b in zip(alphas, betas, strict=True)]).argmin(axis=0)
    for found, count in zip(
        best_arm_probabilities(alphas, betas), np.bincount(least, minlength=len(alphas)), strict=True
    ):
        # five standard deviations of a binomial, and the worst error of the integral
        assert abs(count - draws * found) <= 5.0 * math.sqrt(draws * found * (1.0 - found)) + draws * 1e-4


def test_two_posteriors_have_the_probability_that_can_be_counted():
    """P(X < Y) is the sum over i < c of B(a + i, b + d) / ((d + i) B(1 + i, d) B(a, b)), by parts; Y is Beta(c, d)."""

    def log_beta(a, b):
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    a, b, c, d = 4, 9, 7, 6
    counted = sum(math.exp(log_beta(a + i, b + d) - log_beta(1 + i, d) - log_beta(a, b)) / (d + i) for i in range(c))
    found = best_arm_probabilities([float(a), float(c)], [float(b), float(d)])
    assert found == pytest.approx([counted, 1.0 - counted], abs=1e-6)
    # a uniform loss is below one with density 2 (1 - x) in a third of the cases
    assert best_arm_probabilities([1.0, 1.0], [1.0, 2.0]) == pytest.approx([1 / 3, 2 / 3], abs=1e-6)


def test_a_model_that_joins_has_the_mean_of_the_others_and_little_of_it():
    alphas, betas = posteriors(STATE, ["a:1", "b:1", "c:1", "new:1"])
    average = (6 / 40 + 5 / 25 + 1 / 9) / 3
    assert (alphas[3], betas[3]) == pytest.approx((0.5 + average, 1.5 - average))
    weights = Thompson().weights(STATE, ["a:1", "b:1", "c:1", "new:1"])
    assert 0.1 < weights["new:1"] < 0.7


def test_the_order_of_the_candidates_does_not_matter():
    forward, backward = (Thompson().weights(STATE, order) for order in (["a:1", "b:1", "c:1"], ["c:1", "b:1", "a:1"]))
    assert forward == pytest.approx(backward, abs=1e-12)


def test_without_exploration_a_model_that_is_never_the_best_is_not_asked():
    state = SelectionState({"a:1": ModelTotals(1e6, 1e5), "b:1": ModelTotals(1e6, 9e5)})
    assert len(Thompson().prepare(state, ["a:1", "b:1"]).decisions) == 1
