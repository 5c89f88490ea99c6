"""How often a trial is decided wrongly, where the world is not always the same: a small form of the page's table.

Each side is promised for at most 2.5 % of trials, so of so many seeds more than `MOST` are wrong with a probability of
less than 0.001.
"""

from dataclasses import replace

import pytest
from builders.benchmarks import benchmark_module
from scipy.stats import binom

from clipper_stream.sequential_testing.rollout_rule import TrialRule

TRIALS, DECISIONS = benchmark_module("rig.trials"), benchmark_module("decisions")
SEEDS = 16
MOST = int(binom.ppf(0.999, SEEDS, 0.025))


def ends(name, queries=6_000):
    scenario = replace(DECISIONS.SCENARIOS[name], queries=queries)
    return [TRIALS.run(scenario, seed, TrialRule()) for seed in range(SEEDS)]


@pytest.mark.parametrize(
    "name",
    [
        "always the same, +0.02",
        "hard, then easy, the share rises, +0.05",
        "failures are labelled first, +0.10",
        "half of the trial's failures without feedback, half, +0.05",
        "day and night, half, +0.02",
    ],
)
def test_a_worse_version_is_promoted_no_oftener_than_is_promised(name):
    found = ends(name)
    assert sum(end.wrong for end in found) <= MOST, found


@pytest.mark.parametrize(
    "name",
    [
        "labels, -0.10",
        "failures are labelled first, -0.10",
        "the host starts for 30 s, labels, -0.10",
        "the host dies for 5 s each 5 min, rewards, -0.10",
    ],
)
def test_a_better_version_is_promoted_and_aborted_no_oftener_than_is_promised(name):
    found = ends(name, queries=12_000)
    assert sum(end.action == "abort" for end in found) <= MOST, found
    assert sum(end.action == "promote" for end in found) >= SEEDS - MOST - 1, found


def test_where_feedback_is_missing_for_a_reason_nobody_knows_the_rule_says_so():
    found = ends("half of the trial's failures without feedback, half, +0.05", queries=8_000)
    assert {end.action for end in found} == {"wait"}
    assert all("by losses that are not known" in end.why for end in found)


def test_a_version_that_is_asked_oftener_than_the_log_says_is_not_decided():
    found = ends("asked by 15 % where the log says 10 %, +0.05")
    assert sum("more often than its share says" in end.why for end in found) >= SEEDS - MOST
    assert not any(end.wrong for end in found)
