"""Whether guardrails abort as seldom as is promised: a small form of `benchmarks/guardrails.py`."""

import numpy as np
import pytest
from builders.benchmarks import benchmark_module
from scipy.stats import binom

from clipper_stream.sequential_testing.score_sums import Score, ScoreSums
from clipper_stream.sequential_testing.trial_evidence import TrialDecision, TrialEvidence

GUARDRAILS = benchmark_module("guardrails")
WORLDS = {(one.guardrail, one.name): one for one in GUARDRAILS.WORLDS}
HARMED = {("p99", "3 % are slow"), ("errors", "3 % beside 1 %"), ("cost", "0.05 beside 0.02")}
AT_BOUND = [key for key, one in WORLDS.items() if one.at_bound and "revenue" not in key]
SEEDS, LONG = 60, 1_200
SEED = next(seed for seed in range(99) if np.random.default_rng(seed).random() < GUARDRAILS.SHARE)
"""The trial is asked first, as what comes before its first answer does not count."""


@pytest.mark.parametrize("of", [*AT_BOUND, *HARMED])
def test_a_guardrail_aborts_what_is_outside_and_seldom_what_is_at_its_bound(of):
    """More are wrong with a probability of less than 0.001."""
    seconds = LONG if "all three" not in of else 300
    ends = GUARDRAILS.ends_of(WORLDS[of].measures, SEEDS, seconds)
    most = int(binom.ppf(0.999, SEEDS, 0.025))
    assert ends.wrong_aborts <= most
    assert ends.wrong_within <= most
    if of in HARMED:
        assert np.isfinite(ends.aborted).mean() > 0.8


def test_the_capitals_of_the_simulation_are_those_of_the_product():
    draw = np.random.default_rng(3)
    many, one, means = GUARDRAILS.Capitals(0.05, 1), ScoreSums(0.05), ScoreSums(0.05)
    for second, value in enumerate(draw.random(50)):
        many.add(np.ones(1), np.array([value]))
        one.add(second, Score(1.0, value, value))
        means.add_query(second, value)
    means.add_query(50, 0.0)
    for found in (one.capital(), means.capital()):
        assert not many.reached(many.above, np.exp(-found.above - 1e-9))[0]
        assert many.reached(many.above, np.exp(-found.above + 1e-9))[0]
        assert many.reached(many.below, np.exp(-found.below + 1e-9))[0]


def test_a_metric_of_the_simulation_is_scored_as_the_product_scores_it():
    trials, evidence = GUARDRAILS.Trials(GUARDRAILS.AT_BOUND[2], 1), TrialEvidence(GUARDRAILS.AT_BOUND[2].margin)
    scored, add = [], trials.whole.add

    def spied(weight, score):
        scored.append(score[0])
        add(weight, score)

    trials.whole.add = spied
    kept = np.random.default_rng(SEED)
    trials.look(np.random.default_rng(SEED), 0)
    for score in scored:
        asked = bool(kept.random(1)[0] < GUARDRAILS.SHARE)
        luck, sells = kept.random(1)[0], kept.random(1)[0] < GUARDRAILS.SELL
        value = 1.0 - sells * GUARDRAILS.AT_BOUND[2].worths[0 if asked else 1] * 2.0 / GUARDRAILS.SELL * luck
        one = evidence.decide(TrialDecision(second=0, share=GUARDRAILS.SHARE, asked=asked, canary=True))
        evidence.learn(one, "reward", *((value, None) if asked else (None, value)))
        assert one.score.low == pytest.approx(score)
