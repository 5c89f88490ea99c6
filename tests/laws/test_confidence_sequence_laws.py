"""Laws of every confidence sequence. The statistical ones have fixed seeds and computed bounds."""

import math
import random
from functools import cache

import numpy as np
import pytest
from builders.benchmarks import benchmark_module
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper_stream.errors import InvalidLabel, InvalidSetting
from clipper_stream.sequential_testing.empirical_bernstein import EmpiricalBernstein
from clipper_stream.sequential_testing.hedged_capital import GRID, Betting

MANY = benchmark_module("rig.confidence_sequences")

SEQUENCES = [Betting, EmpiricalBernstein]
ALPHA = 0.05
RUNS, LOOKS = 1_000, 1_000
MOST_MISSED = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)
"""Share of runs that may miss: the promise, and three standard deviations of a share of so many runs."""

each = pytest.mark.parametrize("sequence", SEQUENCES)
values = st.lists(st.floats(0.0, 1.0) | st.sampled_from([0.0, 1.0]), max_size=60)


DRAWN = {
    "rare errors": (lambda rng, size: rng.binomial(1, 0.02, size), 0.02),
    "a tenth of errors": (lambda rng, size: rng.binomial(1, 0.1, size), 0.1),
    "coins": (lambda rng, size: rng.binomial(1, 0.5, size), 0.5),
    "continuous": (lambda rng, size: rng.beta(2.0, 5.0, size), 2 / 7),
    "differences of versions that mostly agree": (
        lambda rng, size: rng.choice([0.0, 0.5, 1.0], p=[0.02, 0.96, 0.02], size=size),
        0.5,
    ),
}


@cache
def samples(name):
    """Observations in [0, 1], a row a run, and their mean."""
    draw, mean = DRAWN[name]
    return draw(np.random.default_rng(20), (RUNS, LOOKS)).astype(float), mean


def ever_missed(sequence, observed, mean):
    """Share of runs in which the mean was outside at any time."""
    if sequence is Betting:
        above, below = MANY.capitals(observed, mean, ALPHA)
        missed = np.maximum(above, below).max(axis=1) >= MANY.goal(ALPHA)
    else:
        lower, upper = MANY.bernstein_bounds(observed, ALPHA)
        missed = (lower > mean).any(axis=1) | (upper < mean).any(axis=1)
    return float(missed.mean())


def fixed_n_ever_missed(observed, mean):
    """The same of the normal interval of an estimate, which a t-test is at these sizes, looked at from the 30th on."""
    n = np.arange(1, LOOKS + 1)
    means = np.cumsum(observed, axis=1) / n
    variances = np.maximum(np.cumsum(observed**2, axis=1) / n - means**2, 0.0)
    outside = np.abs(means - mean) > 1.96 * np.sqrt(variances / n)
    return float(outside[:, 30:].any(axis=1).mean()), float(outside[:, -1].mean())


@each
@pytest.mark.parametrize("name", DRAWN)
def test_the_mean_is_inside_at_all_times_at_once_as_often_as_promised(sequence, name):
    assert ever_missed(sequence, *samples(name)) <= MOST_MISSED


@pytest.mark.parametrize("name", ["a tenth of errors", "coins", "continuous"])
def test_a_fixed_sample_interval_fails_when_looked_at_all_the_time(name):
    ever, at_the_end = fixed_n_ever_missed(*samples(name))
    assert at_the_end <= MOST_MISSED + 0.01, "right at the one time that it is made for"
    assert ever > 0.3, "and wrong sooner or later"


@each
def test_the_interval_becomes_narrow(sequence):
    (observed, mean), found = samples("a tenth of errors"), sequence(alpha=ALPHA)
    widths = {}
    for value in observed[0]:
        found = found.observe(float(value))
        widths[found.count] = found.upper - found.lower
    assert widths[100] < 0.35
    assert widths[1000] < 0.1
    assert found.lower < mean < found.upper


@each
@settings(max_examples=25)
@given(observed=values)
def test_an_end_only_moves_inwards_and_the_interval_stays_in_the_range(sequence, observed):
    found = sequence(alpha=ALPHA, low=-1.0, high=1.0)
    for value in observed:
        before, found = found, found.observe(2 * value - 1)
        assert before.lower <= found.lower
        assert found.upper <= before.upper
        assert -1.0 <= found.lower <= 1.0
        assert -1.0 <= found.upper <= 1.0
    assert found.count == len(observed)


@each
@settings(max_examples=25)
@given(observed=values, cut=st.integers(0, 60))
def test_the_same_observations_give_the_same_bits_whenever_they_come(sequence, observed, cut):
    def fold(found, some):
        for value in some:
            found = found.observe(value)
        return found

    whole = fold(sequence(alpha=ALPHA), observed)
    halves = fold(fold(sequence(alpha=ALPHA), observed[:cut]), observed[cut:])
    seen = [(one.count, one.mean, one.lower, one.upper) for one in (whole, halves)]
    assert seen[0] == seen[1]


@each
def test_a_smaller_alpha_and_fewer_observations_give_a_wider_interval(sequence):
    observed = [random.Random(3).random() for _ in range(200)]
    wide, narrow = sequence(alpha=0.001), sequence(alpha=0.1)
    for value in observed:
        wide, narrow = wide.observe(value), narrow.observe(value)
    assert wide.lower < narrow.lower
    assert narrow.upper < wide.upper


@each
def test_before_the_first_observation_nothing_is_known(sequence):
    found = sequence(alpha=ALPHA, low=-1.0)
    assert (found.count, found.mean, found.lower, found.upper) == (0, 0.0, -1.0, 1.0)


@each
def test_what_lies_outside_of_the_range_is_refused(sequence):
    for value in (-0.1, 1.1, math.nan, math.inf):
        with pytest.raises(InvalidLabel, match="give a number from 0 to 1"):
            sequence(alpha=ALPHA).observe(value)
    for alpha in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(InvalidSetting, match="alpha"):
            sequence(alpha=alpha)
    with pytest.raises(InvalidSetting, match="range"):
        sequence(alpha=ALPHA, low=1.0, high=1.0)


@settings(max_examples=25)
@given(observed=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40))
def test_many_runs_at_once_are_the_same_as_one_after_the_other(observed):
    bernstein, betting = EmpiricalBernstein(alpha=ALPHA), Betting(alpha=ALPHA)
    lower, upper = MANY.bernstein_bounds(np.array([observed]), ALPHA)
    means = np.linspace(0.0, 1.0, GRID + 1)[:: GRID // 20]
    capital = [MANY.capitals(np.array([observed]), float(mean), ALPHA) for mean in means]
    for index, value in enumerate(observed):
        bernstein, betting = bernstein.observe(value), betting.observe(value)
        assert (bernstein.lower, bernstein.upper) == pytest.approx((lower[0, index], upper[0, index]))
        for mean, (above, below) in zip(means, capital, strict=True):
            first, second = above[0, : index + 1].max(), below[0, : index + 1].max()
            if abs(first - MANY.goal(ALPHA)) > 1e-9:
                assert (mean <= betting.lower + 1e-12) == (first >= MANY.goal(ALPHA) or (mean == 0.0 == betting.lower))
            if abs(second - MANY.goal(ALPHA)) > 1e-9:
                assert (mean >= betting.upper - 1e-12) == (second >= MANY.goal(ALPHA) or (mean == 1.0 == betting.upper))
