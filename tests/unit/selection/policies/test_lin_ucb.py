"""LinUCB: finds what depends on a feature, beats whoever does not look at it, and is the ridge regression it says."""

import math
import random

import numpy as np
import pytest
from builders.bandits import prepared_for

from clipper_stream.selection.policies.lin_ucb import LinUcb, linear_losses
from clipper_stream.selection.rng import query_rng
from clipper_stream.selection.state import ModelTotals, SelectionState
from clipper_stream.selection.sufficient_statistics import added, moments_of, normal_equations, width_of

MODELS = ("a:1", "b:1", "c:1")
QUERIES = 3_000
COEFFICIENTS = {"a:1": (0.1, 0.6), "b:1": (0.7, -0.6), "c:1": (0.35, 0.0)}
"""Probability of an error at a feature: a constant, and a slope."""


def error(model, feature):
    constant, slope = COEFFICIENTS[model]
    return constant + slope * feature


def gap(model, feature):
    return error(model, feature) - min(error(other, feature) for other in MODELS)


def regret(policy, seed):
    """Of a run, summed; each query has one feature, uniform in [0, 1], and feedback at once."""
    world, state, total = random.Random(seed), SelectionState(), 0.0
    for number in range(QUERIES):
        feature = world.random()
        decision = prepared_for(policy, state, MODELS, [feature]).select(query_rng(seed, f"0-{number}"))
        (model,) = decision.models
        total += gap(model, feature)
        losses = {model: float(world.random() < error(model, feature))}
        state = policy.observe_for(state, losses, {model: decision.propensities[0]}, [feature])
    return total


def least_regret_without_features():
    """Whoever does not look at the feature has at least this, but once in a million runs.

    His choice is independent of the feature, so each query costs him at least the least expected gap. Five standard
    deviations by Azuma's inequality: a gap lies in [0, 0.6], half of which bounds its deviation.
    """
    grid = [(place + 0.5) / 1_000 for place in range(1_000)]
    least = min(sum(gap(model, feature) for feature in grid) / len(grid) for model in MODELS)
    return QUERIES * least - 5.0 * 0.3 * math.sqrt(QUERIES)


@pytest.mark.parametrize("seed", range(3))
def test_it_has_less_regret_than_whoever_does_not_look_at_the_feature_can_have(seed):
    assert regret(LinUcb(), seed) < least_regret_without_features() / 3


@pytest.mark.parametrize("seed", range(10))
def test_loss_and_width_are_those_of_a_ridge_regression_and_the_least_bound_is_chosen(seed):
    """Of the first model nothing is known; a query may have fewer features than others, and more than were learned."""
    rng = np.random.default_rng(seed)
    ridge, alpha, known, regressions = rng.uniform(0.5, 3.0), rng.uniform(0.0, 2.0), [], []
    for count in (0, 5, 200):
        totals, x, y = ModelTotals(), np.zeros((count, 8)), rng.random(count)
        for row, loss in zip(x, y.tolist(), strict=True):
            features = rng.normal(0.0, 2.0, rng.integers(1, 5)).tolist()
            row[: len(features) + 1] = [1.0, *features]
            totals += ModelTotals(1.0, loss, 1.0, loss, moments_of(features, loss))
        known.append(totals)
        regressions.append((np.linalg.inv(x.T @ x + ridge * np.eye(8)), x.T @ y))
    mean = np.mean([totals.loss / totals.count for totals in known[1:]])
    losses = linear_losses(known, ridge, mean)
    policy, state = (
        LinUcb(alpha=alpha, ridge=ridge, exploration=0.0),
        SelectionState(dict(zip(MODELS, known, strict=True))),
    )
    for _ in range(10):
        features = rng.normal(0.0, 2.0, rng.integers(1, 8)).tolist()
        x = np.array([1.0, *features, *[0.0] * (7 - len(features))])
        expected = [inverse @ (vector + ridge * mean * np.eye(8)[0]) @ x for inverse, vector in regressions]
        widths = [np.sqrt(x @ inverse @ x) for inverse, _ in regressions]
        found = losses.at(features)
        assert found[0] == pytest.approx(expected)
        assert found[1] == pytest.approx(widths)
        best = MODELS[np.argmin(np.array(expected) - alpha * np.array(widths))]
        assert prepared_for(policy, state, MODELS, features).weights[best] == 1.0


def test_moments_of_fewer_features_are_those_of_more_that_are_zero():
    few, many = moments_of([0.5], 0.25), moments_of([0.5, 0.0, 0.0], 0.25)
    assert added(few, ()) == few
    assert added(few, (0.0,) * len(many)) == many == added((0.0,) * len(many), few)
    matrix, vector = normal_equations(added(few, moments_of([-1.0, 2.0], 1.0)), 4)
    x = np.array([[1.0, 0.5, 0.0, 0.0], [1.0, -1.0, 2.0, 0.0]])
    assert np.array_equal(matrix, x.T @ x)
    assert np.array_equal(vector, x.T @ [0.25, 1.0])
    assert [width_of(moments_of([0.0] * count, 0.0)) for count in range(17)] == list(range(1, 18))


def test_with_a_half_life_a_model_that_turned_bad_for_some_queries_is_left_there():
    policy, state = LinUcb(half_life=20.0, exploration=0.0), SelectionState()
    for number in range(400):
        turned = number >= 200
        for feature in (-1.0, 1.0):
            losses = {"a:1": float(turned and feature > 0.0), "b:1": 0.3}
            state = policy.observe_for(state, losses, dict.fromkeys(losses, 1.0), [feature])
    chosen = [prepared_for(policy, state, ("a:1", "b:1"), [feature]).weights for feature in (-1.0, 1.0)]
    assert chosen == [{"a:1": 1.0, "b:1": 0.0}, {"a:1": 0.0, "b:1": 1.0}]


def test_sums_that_no_features_can_have_still_make_a_choice():
    """Somebody may restore anything: a matrix that is not positive, and numbers beyond all reason."""
    beyond = ModelTotals(1.0, 1.0, 1.0, 1.0, (-1e100, 1e100, 1e100, -1e100, -1e100))
    strange = SelectionState({"a:1": beyond, "b:1": ModelTotals(1.0, 0.0, 1.0, 0.0, (5e-324, 0.0, 1e100, 0.0, 0.0))})
    decision = prepared_for(LinUcb(), strange, MODELS, [1e6] * 16).select(query_rng(0, "q"))
    assert 0.0 < decision.propensities[0] <= 1.0
