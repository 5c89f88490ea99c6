"""LinUCB: finds what depends on a feature, beats whoever does not look at it, and is the ridge regression it says."""

import math
import random

import numpy as np
import pytest

from clipper_stream.selection.policies.lin_ucb import LinUcb, linear_losses
from clipper_stream.selection.registry import POLICIES, make_policy
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


def run(policy, seed, features_of, error_of):
    """What is asked, query by query, with feedback at once."""
    world, state = random.Random(seed), SelectionState()
    for number in range(QUERIES):
        features = features_of(world)
        decision = policy.prepare_for(state, MODELS, features).select(query_rng(seed, f"0-{number}"))
        (model,) = decision.models
        yield model, features
        losses = {model: float(world.random() < error_of(model, features[0]))}
        state = policy.observe_for(state, losses, {model: decision.propensities[0]}, features)


def regret(policy, seed):
    """Of a run, summed; each query has one feature, uniform in [0, 1]."""
    return sum(gap(model, feature) for model, (feature,) in run(policy, seed, lambda world: [world.random()], error))


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


@pytest.mark.parametrize("name", [name for name in POLICIES if name not in ("lin_ucb", "exp4", "exp4_clipper")])
def test_policies_blind_to_the_feature_have_the_regret_they_must_have(name):
    assert regret(make_policy(name), 0) > least_regret_without_features()


def test_where_no_feature_matters_it_ends_with_the_best_model():
    def two_features(world):
        return [world.random(), world.random()]

    def error_of(model, _):
        return 0.1 if model == "b:1" else 0.4

    asked = [model for model, _ in run(LinUcb(exploration=0.1), 3, two_features, error_of)]
    # two thirds of the exploration go to others; a binomial count of these and five standard deviations
    half, chance = QUERIES // 2, 0.1 * 2 / 3
    others = sum(model != "b:1" for model in asked[half:])
    assert others <= half * chance + 5.0 * math.sqrt(half * chance * (1.0 - chance))


def test_a_linear_loss_is_found_within_its_width():
    world, truth = random.Random(2), np.array([0.5, 0.2, -0.1, 0.05])
    totals, ridge, n = ModelTotals(), 1.0, 4_000
    for _ in range(n):
        features = [world.uniform(-1.0, 1.0) for _ in range(3)]
        loss = float(world.random() < truth @ [1.0, *features])
        totals += ModelTotals(1.0, loss, 1.0, loss, moments_of(features, loss))
    losses = linear_losses([totals], ridge, mean=totals.loss / n)
    for _ in range(20):
        features = [world.uniform(-1.0, 1.0) for _ in range(3)]
        (loss,), (width,) = losses.at(features)
        # five standard deviations of noise of at most 0.5, and what the ridge pulls towards no slope
        assert abs(loss - truth @ [1.0, *features]) <= width * (
            5.0 * 0.5 + math.sqrt(ridge) * np.abs(truth[1:]).sum() + 0.1
        )
    assert width < 0.05


def test_loss_and_width_are_those_of_an_independent_bayesian_regression():
    linear_model = pytest.importorskip("river.linear_model", reason="the extra drift is not installed")
    world = random.Random(6)
    known, regressions = [ModelTotals()] * 3, [linear_model.BayesianLinearRegression() for _ in range(3)]
    for number in range(200):
        model = number % 2  # of the third nothing is known
        features, loss = [world.gauss(0.0, 2.0) for _ in range(4)], world.random()
        known[model] += ModelTotals(moments=moments_of(features, loss))
        regressions[model].learn_one(dict(enumerate([1.0, *features])), loss)
    losses = linear_losses(known, ridge=1.0, mean=0.0)
    for _ in range(20):
        features = [world.gauss(0.0, 2.0) for _ in range(4)]
        for regression, loss, width in zip(regressions, *losses.at(features), strict=True):
            told = regression.predict_one(dict(enumerate([1.0, *features])), with_dist=True)
            if regression is not regressions[2]:
                assert loss == pytest.approx(told.mu, abs=1e-9)
                assert 1.0 + width**2 == pytest.approx(told.sigma**2, rel=1e-9)  # its own noise has a variance of 1


def test_an_unknown_model_has_the_mean_loss_of_the_others():
    state = SelectionState({"a:1": ModelTotals(10.0, 2.0), "b:1": ModelTotals(10.0, 6.0)})
    place = LinUcb().by_features(state, [*MODELS]).place
    losses, widths = place.func.__self__.at([0.25, -3.0])  # type: ignore[attr-defined]
    assert losses == pytest.approx([0.4, 0.4, 0.4])
    assert widths == pytest.approx([math.sqrt(1.0 + 0.25**2 + 9.0)] * 3)


def test_a_query_may_have_more_features_than_were_learned_from_and_fewer():
    totals = ModelTotals(moments=moments_of([0.5], 1.0))
    losses = linear_losses([totals], ridge=2.0, mean=0.0)
    (loss,), (width,) = losses.at([0.5, 3.0])
    (zeros,), (narrow,) = losses.at([0.5, 0.0])
    assert loss == pytest.approx(zeros)
    assert width**2 == pytest.approx(narrow**2 + 9.0 / 2.0)
    wide = linear_losses([ModelTotals(moments=moments_of([0.5, 2.0], 1.0))], ridge=2.0, mean=0.0)
    assert wide.at([0.5])[0] == pytest.approx(wide.at([0.5, 0.0])[0])


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
    chosen = [policy.prepare_for(state, ("a:1", "b:1"), [feature]).weights for feature in (-1.0, 1.0)]
    assert chosen == [{"a:1": 1.0, "b:1": 0.0}, {"a:1": 0.0, "b:1": 1.0}]


def test_sums_that_no_features_can_have_still_make_a_choice():
    """Somebody may restore anything: a matrix that is not positive, and numbers beyond all reason."""
    beyond = ModelTotals(1.0, 1.0, 1.0, 1.0, (-1e100, 1e100, 1e100, -1e100, -1e100))
    strange = SelectionState({"a:1": beyond, "b:1": ModelTotals(1.0, 0.0, 1.0, 0.0, (5e-324, 0.0, 1e100, 0.0, 0.0))})
    decision = LinUcb().prepare_for(strange, MODELS, [1e6] * 16).select(query_rng(0, "q"))
    assert 0.0 < decision.propensities[0] <= 1.0
