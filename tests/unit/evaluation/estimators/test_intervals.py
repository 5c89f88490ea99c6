import math
from dataclasses import replace

import numpy as np
import pytest
from builders.estimators import choices, some_choices

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.estimators.intervals import bootstrap, bootstrap_difference, draws
from clipper_stream.evaluation.estimators.registry import make_estimators

DRAWN = draws(seed=0, resamples=1_000)
NAMES = ("ips", "snips", "dr", "sndr")
ESTIMATORS = {estimator.name: estimator for estimator in make_estimators()}


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


def test_confidence_and_resamples_have_bounds():
    found = sums("ips", some_choices(1))
    for confidence in (0.0, 1.0, math.nan):
        with pytest.raises(InvalidSetting, match="confidence"):
            bootstrap(found, DRAWN, confidence)
    with pytest.raises(InvalidSetting, match="at least 100"):
        draws(0, 99)
