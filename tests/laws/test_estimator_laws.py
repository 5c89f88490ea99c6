"""Laws of every estimator of replay; one that a law is not about is left out by name, with the reason."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from builders.estimators import choices, some_choices, taken
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.estimators.block_sums import BlockSums
from clipper_stream.evaluation.estimators.intervals import bootstrap, draws
from clipper_stream.evaluation.estimators.registry import ESTIMATORS, make_estimators

EVERY = {estimator.name: estimator for estimator in make_estimators()}
DRAWN = draws(seed=1, resamples=200)
SEEDS = st.integers(0, 10_000)


def others(**left_out):
    """All estimators but these, each left out for a reason."""
    return pytest.mark.parametrize("name", [name for name in ESTIMATORS if name not in left_out])


def sums(name, some):
    return EVERY[name].sums(some)


@others(
    dm="is what is predicted, whoever chose",
    dr="is the mean in expectation only: the prediction of what was not chosen is not cancelled",
    sndr="as dr",
)
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_the_logged_policy_as_its_own_candidate_has_the_mean_of_its_losses(name, seed):
    some = some_choices(seed, same=True)
    assert sums(name, some).value == pytest.approx(some.loss.sum() / len(some), abs=1e-12)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_logged_policy_estimates_its_own_mean_within_four_errors(name):
    some = some_choices(3, n=20_000, same=True)
    truth = float((some.target @ np.linspace(0.2, 0.6, 3)).mean())
    assert abs(sums(name, some).value - truth) < 4 * sums("on_policy", some).standard_error


@others(
    ips="counts what it does not see as 0: that is what self-normalising mends",
)
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, by=st.floats(-2.0, 2.0))
def test_shifting_losses_and_predictions_shifts_the_value(name, seed, by):
    some = some_choices(seed)
    moved = replace(
        some,
        loss=np.where(some.weight > 0, some.loss + by, 0.0),
        predicted=some.predicted + by,
        answer_loss=some.answer_loss + by,
    )
    assert sums(name, moved).value == pytest.approx(sums(name, some).value + by, abs=1e-9)


@others(
    ips="exceeds 1 where a large weight meets a loss",
    dr="corrects a prediction by as much",
    sndr="is a mean of predictions and one of corrections, which lie in [0, 1] and [-1, 1]",
)
@settings(max_examples=50, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 30))
def test_the_value_lies_in_the_range_of_losses(name, seed, n):
    assert -1e-12 <= sums(name, some_choices(seed, n)).value <= 1 + 1e-12


@pytest.mark.parametrize("name", ESTIMATORS)
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, cuts=st.lists(st.integers(0, 400), max_size=4), order=SEEDS)
def test_neither_the_order_of_rows_nor_the_cut_into_chunks_changes_anything(name, seed, cuts, order):
    some = some_choices(seed)
    shuffled = taken(some, np.random.default_rng(order).permutation(len(some)))
    merged = BlockSums.empty()
    ends = [0, *sorted(cuts), len(some)]
    for begin, end in pairwise(ends):
        merged = merged.merged(sums(name, taken(shuffled, slice(begin, end))))
    whole = sums(name, some)
    assert merged.decisions == whole.decisions
    assert merged.value == pytest.approx(whole.value, abs=1e-12)
    found, expected = bootstrap(merged, DRAWN), bootstrap(whole, DRAWN)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_without_a_decision_there_is_no_value_and_nothing_is_known(name):
    none = taken(some_choices(1), slice(0, 0))
    found = bootstrap(sums(name, none), DRAWN)
    assert np.isnan(sums(name, none).value)
    assert (found.low, found.high) == (0.0, 1.0)


@pytest.mark.parametrize("name", ["dm", "dr", "sndr"])
def test_an_estimator_that_predicts_asks_for_predictions(name):
    with pytest.raises(InvalidSetting, match="no predicted losses"):
        sums(name, replace(some_choices(1), predicted=None))


@others(
    on_policy="is about the log, not the candidate",
    dm="errs as its predictions do",
)
def test_the_estimate_has_no_bias_beyond_chance(name):
    """The mean over 400 logs is within four standard errors of the truth, though predictions are far too high."""
    truth, target = np.array([0.2, 0.5, 0.8]), np.tile([0.7, 0.2, 0.1], (300, 1))
    logged, found = np.tile([0.2, 0.3, 0.5], (300, 1)), []
    for seed in range(400):
        rng = np.random.default_rng([seed, 8])
        chosen = rng.choice(3, 300, p=logged[0])
        some = choices(logged, target, chosen, rng.random(300) < truth[chosen], np.full((300, 3), 0.9))
        found.append(sums(name, some).value)
    assert abs(np.mean(found) - target[0] @ truth) < 4 * np.std(found) / 20
