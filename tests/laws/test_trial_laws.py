"""How often a trial is decided wrongly, where the world is not always the same: a small form of the page's table.

Each side is promised for at most 2.5 % of trials: of so many seeds more than `most_of` are wrong with a probability of
less than 0.001.
"""

from dataclasses import replace
from math import log

import numpy as np
import pytest
from builders.benchmarks import benchmark_module
from scipy.special import betaln
from scipy.stats import binom, binomtest

from clipper_stream.sequential_testing.rollout_rule import TrialRule, judge
from clipper_stream.sequential_testing.trial_evidence import TrialDecision, TrialEvidence

TRIALS, DECISIONS = benchmark_module("rig.trials"), benchmark_module("decisions")
each_size = pytest.mark.parametrize("seeds", [4, pytest.param(16, marks=pytest.mark.slow)])
UNKNOWN = "half of the trial's failures without feedback, half, +0.05"


def ends(name, seeds, queries, **changes):
    scenario = replace(DECISIONS.SCENARIOS[name], queries=queries, **changes)
    return [TRIALS.run(scenario, seed, TrialRule()) for seed in range(seeds)]


def most_of(seeds):
    return int(binom.ppf(0.999, seeds, 0.025))


@each_size
@pytest.mark.parametrize(
    "name",
    [
        "always the same, +0.02",
        "hard, then easy, the share rises, +0.05",
        "failures are labelled first, +0.10",
        "day and night, half, +0.02",
    ],
)
def test_a_worse_version_is_promoted_no_oftener_than_is_promised(name, seeds):
    found = ends(name, seeds, 6_000)
    assert sum(end.wrong for end in found) <= most_of(seeds), found


@each_size
@pytest.mark.parametrize(
    "name",
    [
        "labels, -0.10",
        "failures are labelled first, -0.10",
        "the host starts for 30 s, labels, -0.10",
        "the host dies for 5 s each 5 min, rewards, -0.10",
    ],
)
def test_a_better_version_is_promoted_and_aborted_no_oftener_than_is_promised(name, seeds):
    found = ends(name, seeds, 12_000)
    assert sum(end.action == "abort" for end in found) <= most_of(seeds), found
    assert sum(end.action == "promote" for end in found) >= seeds - most_of(seeds) - 1, found


@each_size
def test_where_feedback_is_missing_for_a_reason_nobody_knows_the_rule_says_so(seeds):
    found = ends(UNKNOWN, seeds, 8_000)
    assert {end.action for end in found} == {"wait"}
    assert all("by losses that are not known" in end.why for end in found)


@each_size
def test_a_version_that_is_asked_oftener_than_the_log_says_is_not_decided(seeds):
    found = ends("asked by 15 % where the log says 10 %, +0.05", seeds, 6_000)
    assert sum("more often than its share says" in end.why for end in found) >= seeds - most_of(seeds)
    assert not any(end.wrong for end in found)


@each_size
@pytest.mark.parametrize("worse", [-0.10, 0.10])
def test_a_declared_sample_of_the_feedback_is_enough_and_another_is_not(worse, seeds):
    name = f"feedback about a declared sample of 5 % of queries, half, {worse:+.2f}"
    found = ends(name, seeds, 16_000)
    assert sum(end.wrong for end in found) <= most_of(seeds), found
    assert worse > 0.0 or sum(end.action == "promote" for end in found) >= seeds - most_of(seeds), found
    (unsaid,) = ends(name, 1, 16_000, sampled=False)
    assert unsaid.action == "wait"
    assert "by losses that are not known" in unsaid.why


def shares_of(asked_of, queries, share, seed):
    """Whether our check of shares refuses a canary, and another's two checks at the same place in the log."""
    asked = np.random.default_rng(seed).random(queries) < asked_of
    evidence = TrialEvidence(0.02)
    for number, one in enumerate(asked):
        evidence.decide(TrialDecision(second=number // 20, share=share, asked=bool(one), canary=True))
        if number % 100 == 99 and "more often" in judge(TrialRule(), "canary", share, evidence).why:
            break
    count, of = int(asked[: number + 1].sum()), number + 1
    refused = "more often" in judge(TrialRule(), "canary", share, evidence).why
    return refused, binomtest(count, of, share).pvalue, sequential_odds(count, of, share)


def sequential_odds(count, of, share, prior=100.0):
    """Lindon and Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022: odds against the share."""
    a, b = prior * share, prior * (1.0 - share)
    return betaln(a + count, b + of - count) - betaln(a, b) - count * log(share) - (of - count) * log(1.0 - share)


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))])
def test_a_share_that_is_not_as_logged_is_refused_where_other_tests_refuse_it(seed):
    refused, p_value, odds = shares_of(0.15, 4_000, 0.1, seed)
    assert refused
    assert p_value < 0.001
    assert odds > 0.0
    kept, p_value, odds = shares_of(0.1, 4_000, 0.1, seed)
    assert not kept
    assert p_value > 0.001
    assert odds < log(1 / 0.001)
