"""The intervals that are recommended cover the truth as often as they say, on logs of which everything is known."""

from collections import Counter
from functools import cache

import pytest
from builders.benchmarks import benchmark_module
from scipy.stats import binom

from clipper_stream.evaluation.estimators.intervals import bootstrap, draws
from clipper_stream.evaluation.estimators.registry import make_estimators
from clipper_stream.evaluation.estimators.support import SupportSums

DECISIONS, CASES = 3_000, {"explores, far": (0.3, 0.0, "far"), "audits, near": (0.0, 0.1, "near")}
RECOMMENDED = ("ips", "snips", "dr", "sndr")
FALSE_ALARM = 0.001
"""How often each bound of this file is missed by chance alone."""
each_case = pytest.mark.parametrize("case", CASES)
each_size = pytest.mark.parametrize("seeds", [100, pytest.param(500, marks=pytest.mark.slow)])


@cache
def hits(case, seeds):
    """In how many seeds each interval covers, by estimator; and how many seeds gave a warning."""
    world, drawn, found, warned = benchmark_module("rig.full_information"), draws(0, 500), Counter(), 0
    traffic, (exploration, audits, candidate) = world.synthetic(3), CASES[case]
    policy = world.exploring(traffic, exploration, 2)
    target = world.far(traffic) if candidate == "far" else world.near(traffic, 2)
    truth = traffic.truth(target)
    for seed in range(seeds):
        some = traffic.logged(policy, audits, target, DECISIONS, seed)
        support = SupportSums.of(some, len(policy))
        warned += bool(support.warnings("abcde", range(len(policy))))
        for estimator in make_estimators([*RECOMMENDED, "dm"]):
            found[estimator.name] += bootstrap(estimator.sums(some), drawn).covers(truth)
    return found, warned


@each_size
@each_case
def test_intervals_cover_as_often_as_they_say_within_chance(case, seeds):
    found, warned = hits(case, seeds)
    for name in RECOMMENDED:
        assert binom.ppf(FALSE_ALARM, seeds, 0.95) <= found[name] <= binom.isf(FALSE_ALARM, seeds, 0.95), name
    assert found["dm"] < 0.5 * seeds, "which is why predictions alone are not recommended"
    assert warned <= 0.05 * seeds, "a log with enough of the candidate"


def test_the_estimators_that_say_that_they_cover_are_the_recommended_ones():
    assert {each.name for each in make_estimators() if each.covers} == {"on_policy", *RECOMMENDED}
