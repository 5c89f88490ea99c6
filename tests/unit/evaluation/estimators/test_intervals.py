import math
from dataclasses import replace

import numpy as np
import pytest
from builders.estimators import choices, some_choices, taken

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.estimators.intervals import bernstein, bootstrap, bootstrap_difference, draws
from clipper_stream.evaluation.estimators.registry import make_estimators

DRAWN = draws(seed=0, resamples=1_000)
NAMES = ("ips", "snips", "dr", "sndr")
ESTIMATORS = {estimator.name: estimator for estimator in make_estimators(decisions=400)}


def sums(name, some):
    return ESTIMATORS[name].sums(some)


def ends(interval):
    return interval.low, interval.high


def test_the_standard_error_of_a_mean_is_the_textbooks():
    losses = np.random.default_rng(4).random(20_000)
    some = choices(np.ones((20_000, 1)), np.ones((20_000, 1)), np.zeros(20_000, int), losses)
    found = sums("on_policy", some).standard_error
    assert found == pytest.approx(
        losses.std() / math.sqrt(20_000), rel=4 / math.sqrt(2 * 512)
    )  # four of its own errors


@pytest.mark.parametrize("name", NAMES)
def test_the_bootstrap_and_the_normal_interval_agree_where_weights_are_moderate(name):
    found = sums(name, some_choices(1, n=20_000))
    normal = (found.value - 1.96 * found.standard_error, found.value + 1.96 * found.standard_error)
    assert ends(bootstrap(found, DRAWN)) == pytest.approx(normal, abs=0.3 * found.standard_error)


@pytest.mark.parametrize("name", NAMES)
def test_more_confidence_is_a_wider_interval_around_the_same_value(name):
    found = sums(name, some_choices(2, n=2_000))
    wide, narrow = bootstrap(found, DRAWN, 0.99), bootstrap(found, DRAWN, 0.8)
    assert wide.low < narrow.low < found.value < narrow.high < wide.high


def test_a_seed_gives_the_same_interval_again():
    found = sums("dr", some_choices(3))
    assert bootstrap(found, draws(7, 500)) == bootstrap(found, draws(7, 500))
    assert bootstrap(found, draws(7, 500)) != bootstrap(found, draws(8, 500))


def test_a_difference_is_narrower_than_two_subtracted_intervals():
    some = some_choices(5, n=5_000)
    nearly = replace(some, target=0.9 * some.target + 0.1 / 3)
    one, other = sums("ips", some), sums("ips", nearly)
    found, alone = bootstrap_difference(one, other, DRAWN), bootstrap(one, DRAWN)
    assert found.covers(one.value - other.value)
    assert found.high - found.low < 0.3 * (alone.high - alone.low)
    assert bootstrap_difference(one, one, DRAWN).covers(0.0)
    best, worst = (replace(some, target=np.tile(each, (5_000, 1))) for each in ([1.0, 0, 0], [0, 0, 1.0]))
    assert bootstrap_difference(sums("snips", best), sums("snips", worst), DRAWN).high < 0


def test_bernstein_is_the_formula():
    losses = np.r_[np.zeros(90), np.ones(10)]
    some = choices(np.ones((100, 1)), np.ones((100, 1)), np.zeros(100, int), losses)
    logarithm = math.log(4 / 0.05)
    radius = math.sqrt(2 * losses.var(ddof=1) * logarithm / 100) + 7 * 3.0 * logarithm / (3 * 99)
    assert ends(bernstein(sums("on_policy", some), 3.0)) == pytest.approx((0.0, 0.1 + radius))


def test_bernstein_knows_that_losses_that_were_never_seen_may_come():
    some = choices(np.ones((1000, 1)), np.ones((1000, 1)), np.zeros(1000, int), np.zeros(1000))
    assert ends(bootstrap(sums("ips", some), DRAWN)) == (0.0, 0.0)
    assert 0.005 < bernstein(sums("ips", some), 1.0).high < 0.02


def test_bernstein_is_refused_where_it_does_not_hold():
    some = some_choices(1)
    weighted = replace(some, share=np.linspace(0.5, 1.0, len(some)))
    for name, choices_of_it, width in (("snips", some, None), ("snips", some, 1.0), ("ips", weighted, 1.0)):
        with pytest.raises(InvalidSetting, match="for means"):
            bernstein(sums(name, choices_of_it), width)
    assert ESTIMATORS["snips"].width(9.0) is None
    assert ends(bernstein(sums("ips", taken(some, [0])), 1.0)) == (0.0, 1.0)


def test_confidence_and_resamples_have_bounds():
    found = sums("ips", some_choices(1))
    for confidence in (0.0, 1.0, math.nan):
        for interval in (lambda c: bernstein(found, 1.0, c), lambda c: bootstrap(found, DRAWN, c)):
            with pytest.raises(InvalidSetting, match="confidence"):
                interval(confidence)
    with pytest.raises(InvalidSetting, match="at least 100"):
        draws(0, 99)
