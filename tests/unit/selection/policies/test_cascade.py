"""Cascade: keeps its budget, finds where the last model is better, and saves most of its cost on real data."""

import random

import numpy as np
import pytest
from builders.benchmarks import benchmark_module

from clipper_stream.selection.policies.cascade import Cascade
from clipper_stream.selection.state import SelectionState

CASCADES = benchmark_module("cascades")
SMALL, LARGE = MODELS = CASCADES.MODELS


def world(kind, count=6_000):
    """Confidences and losses of both models; `specialist`: LARGE is better where SMALL is sure, and worse elsewhere."""
    rng = np.random.default_rng(3)
    confidences = rng.choice([0.3, 0.55, 0.85, 0.96, 0.9995], count, p=[0.05, 0.1, 0.15, 0.2, 0.5])
    small = rng.random(count) > confidences
    large = {
        "better": rng.random(count) < 0.02,
        "no better": rng.random(count) > confidences,
        "specialist": rng.random(count) < np.where(confidences < 0.9, 0.9, 0.0),
    }[kind]
    return CASCADES.Answers(confidences, small.astype(float), large.astype(float))


@pytest.mark.parametrize("rewards", [False, True], ids=["labels", "rewards"])
@pytest.mark.parametrize("budget", [0.0, 0.1, 0.3, 1.0])
def test_the_last_model_is_asked_within_the_budget_and_least_sure_queries_first(budget, rewards):
    policy = Cascade(budget=budget, exploration=0.1)
    served = CASCADES.ServedCascade(policy, world("better"), rewards=rewards)
    assert served.asked.mean() <= budget + 0.03
    chances = policy.chances(served.state, *MODELS)
    known = [chances[place] for place in (0, 2, 5, 7, 11)]
    assert known == sorted(known, reverse=True)
    assert min(known) >= 0.1 * budget - 1e-12
    if budget == 0.3:  # all below 0.8 and most below 0.9
        assert known[:2] == pytest.approx([0.93, 0.93])
        assert known[3:] == pytest.approx([0.03, 0.03], abs=0.2)


@pytest.mark.parametrize("kind", ["no better", "specialist"])
def test_a_last_model_that_is_not_better_where_the_first_is_unsure_is_asked_to_explore_only(kind):
    served = CASCADES.ServedCascade(Cascade(budget=0.3, exploration=0.1), world(kind))
    assert served.asked[3_000:].mean() < 0.15


@pytest.mark.parametrize("data", ["digits", "image segments"])
def test_most_of_the_cost_is_saved_and_most_of_what_the_last_model_gains_is_kept(data):
    answers = CASCADES.DATA[data][1]()
    order = np.random.default_rng(1).permutation(len(answers.dear))
    answers, later = CASCADES.Answers(*(each[order] for each in answers)), slice(len(order) // 2, None)
    served = CASCADES.ServedCascade(Cascade(budget=0.3), answers)
    assert served.asked[later].mean() < 0.32
    cheap, dear = answers.cheap[later].mean(), answers.dear[later].mean()
    assert dear + 0.02 < cheap
    assert served.lost[later].mean() < dear + (cheap - dear) / 3


def test_before_there_is_feedback_the_budget_is_spent_at_random():
    policy = Cascade(budget=0.25)
    assert {*policy.chances(SelectionState(), *MODELS)} == {0.25}
    assert policy.weights(SelectionState(), MODELS) == {SMALL: 0.75, LARGE: 0.25}
    assert policy.by_features(SelectionState(), [SMALL]) is None


def test_candidates_between_the_first_and_the_last_are_not_asked():
    choice = Cascade(budget=1.0).by_features(SelectionState(), ["a:1", "b:1", "c:1"])
    decision = choice.given([0.5]).select(random.Random(1))
    assert (decision.models, decision.served, list(choice.weights)) == (("a:1", "c:1"), ("c:1",), ["a:1", "b:1", "c:1"])
