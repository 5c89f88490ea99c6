"""The intervals that are recommended cover the truth as often as they say, on logs of which everything is known."""

import math
from functools import cache

import numpy as np
import pytest
from builders.benchmarks import benchmark_module
from builders.known_truth import log_of

from clipper_stream.evaluation.estimators.intervals import bernstein, bootstrap, draws
from clipper_stream.evaluation.estimators.propensity_matrices import choices_of
from clipper_stream.evaluation.estimators.registry import make_estimators
from clipper_stream.evaluation.estimators.support import SupportSums

SEEDS, DECISIONS = 500, 3_000
LEAST, MOST = (0.95 + side * 3 * math.sqrt(0.05 * 0.95 / SEEDS) for side in (-1, 1))
"""Of an interval that covers 95 %, one in a thousand such tests has a share beyond each: 0.921 and 0.979."""
CASES = {"explores, far": (0.3, 0.0, "far"), "audits, near": (0.0, 0.1, "near")}
RECOMMENDED = ("ips", "snips", "dr", "sndr")
each_case = pytest.mark.parametrize("case", CASES)


@cache
def hits(case):
    """Whether each interval covers, by estimator and method, a number a seed; and how many seeds gave a warning."""
    world, drawn, found, warned = benchmark_module("rig.full_information"), draws(0, 500), {}, 0
    traffic, (exploration, audits, candidate) = world.synthetic(3), CASES[case]
    policy = world.exploring(traffic, exploration, 2)
    target = world.far(traffic) if candidate == "far" else world.near(traffic, 2)
    truth = traffic.truth(target)
    for seed in range(SEEDS):
        some = traffic.logged(policy, audits, target, DECISIONS, seed)
        support = SupportSums.of(some, len(policy))
        warned += bool(support.warnings("abcde", range(len(policy))))
        for estimator in make_estimators([*RECOMMENDED, "dm"], decisions=DECISIONS):
            sums, width = estimator.sums(some), estimator.width(support.largest_importance)
            found.setdefault((estimator.name, "bca"), []).append(bootstrap(sums, drawn).covers(truth))
            if width is not None:
                found.setdefault((estimator.name, "bernstein"), []).append(bernstein(sums, width).covers(truth))
    return {key: float(np.mean(each)) for key, each in found.items()}, warned / SEEDS


@each_case
@pytest.mark.parametrize("name", RECOMMENDED)
def test_the_bootstrap_covers_as_often_as_it_says_within_chance(name, case):
    assert LEAST <= hits(case)[0][name, "bca"] <= MOST


@each_case
@pytest.mark.parametrize("name", ["ips", "dr"])
def test_empirical_bernstein_covers_more_often_than_it_says(name, case):
    assert hits(case)[0][name, "bernstein"] >= 0.95


@each_case
def test_predictions_alone_do_not_cover_which_is_why_they_are_not_recommended(case):
    assert hits(case)[0]["dm", "bca"] < 0.5


@each_case
def test_a_log_with_enough_of_the_candidate_gives_no_warning(case):
    assert hits(case)[1] <= 0.05


def test_the_estimators_that_say_that_they_cover_are_the_recommended_ones():
    assert {each.name for each in make_estimators(decisions=1) if each.covers} == {"on_policy", *RECOMMENDED}


def test_with_full_information_the_interval_covers_in_at_least_93_of_100_seeds():
    seeds, rows, means, target = 400, 600, (0.3, 0.2, 0.4), (0.1, 0.8, 0.1)
    drawn, covered = draws(seed=0), dict.fromkeys(("ips", "snips"), 0)
    for seed in range(seeds):
        columns, _ = log_of(rows, seed, audit_ratio=1.0, means=means)
        choices = choices_of(columns, np.tile(target, (rows, 1)))
        for one in make_estimators(tuple(covered), decisions=rows):
            covered[one.name] += bootstrap(one.sums(choices), drawn).covers(float(np.dot(means, target)))
    assert min(covered.values()) / seeds >= 0.93, covered  # 0.95 less 1.8 standard errors
