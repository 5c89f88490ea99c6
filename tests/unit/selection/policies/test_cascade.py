"""Cascade: keeps its budget, finds where the last model is better, and saves most of its cost on real data."""

import random

import numpy as np
import pytest
from sklearn.datasets import load_digits, make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.svm import SVC

from clipper_stream.selection.policies.cascade import Cascade
from clipper_stream.selection.rng import query_rng
from clipper_stream.selection.state import SelectionState

SMALL, LARGE = MODELS = ("small:1", "large:1")


class Served:
    """A cascade over queries with confidences and errors of both models: who answered, and what was lost."""

    def __init__(self, policy, confidences, small, large, *, rewards=False, every=50):
        self.state, self.asked, self.lost = SelectionState(), [], []
        for number, confidence in enumerate(confidences):
            if number % every == 0:
                choice = policy.by_features(self.state, MODELS)
            decision = choice.given([confidence]).select(query_rng(7, f"0-{number}"))
            losses = {SMALL: float(small[number]), LARGE: float(large[number])}
            self.asked.append(LARGE in decision.models)
            self.lost.append(losses[decision.served[0]])
            chances = dict(zip(decision.models, decision.propensities, strict=True))
            scored = {model: losses[model] for model in chances}
            if rewards:
                scored = {decision.served[0]: self.lost[-1]}
                chances = {decision.served[0]: decision.served_propensity}
            self.state = policy.observe_for(self.state, scored, chances, [confidence])

    @property
    def share(self):
        return float(np.mean(self.asked))

    def loss(self, since=0):
        return float(np.mean(self.lost[since:]))


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
    return confidences, small, large


@pytest.mark.parametrize("rewards", [False, True], ids=["labels", "rewards"])
@pytest.mark.parametrize("budget", [0.0, 0.1, 0.3, 1.0])
def test_the_last_model_is_asked_within_the_budget_and_least_sure_queries_first(budget, rewards):
    confidences, small, large = world("better")
    policy = Cascade(budget=budget, exploration=0.1)
    served = Served(policy, confidences, small, large, rewards=rewards)
    assert served.share <= budget + 0.03
    chances = policy.chances(served.state, *MODELS)
    known = [chances[place] for place in (0, 2, 5, 7, 11)]
    assert known == sorted(known, reverse=True)
    assert min(known) >= 0.1 * budget - 1e-12
    if budget == 0.3:  # all below 0.8 and most below 0.9
        assert known[:2] == pytest.approx([0.93, 0.93])
        assert known[3:] == pytest.approx([0.03, 0.03], abs=0.2)


@pytest.mark.parametrize("kind", ["no better", "specialist"])
def test_a_last_model_that_is_not_better_where_the_first_is_unsure_is_asked_to_explore_only(kind):
    served = Served(Cascade(budget=0.3, exploration=0.1), *world(kind))
    assert np.mean(served.asked[3_000:]) < 0.15


def digits():
    return *load_digits(return_X_y=True), LogisticRegression(C=0.01, max_iter=300), SVC(gamma=0.001, C=10.0)


def generated():
    made = make_classification(3_000, 20, n_informative=6, class_sep=1.6, flip_y=0.0, random_state=2)
    return *made, LogisticRegression(), SVC()


def predicted(data):
    """Confidences of the first model and losses of both, each predicted out of sample, in random order."""
    rows, labels, small, large = data
    folds = KFold(3, shuffle=True, random_state=1)
    probabilities = cross_val_predict(small, rows, labels, cv=folds, method="predict_proba")
    wrong = cross_val_predict(large, rows, labels, cv=folds) != labels
    order = np.random.default_rng(1).permutation(len(labels))
    order = np.concatenate([order, order[::-1]])
    return probabilities.max(axis=1)[order], (probabilities.argmax(axis=1) != labels)[order], wrong[order]


@pytest.mark.parametrize(
    ("data", "budget", "within"), [(digits, 0.2, 0.004), (generated, 0.3, 0.008)], ids=["digits", "generated"]
)
def test_most_of_the_cost_is_saved_at_about_the_loss_of_the_last_model_alone(data, budget, within):
    confidences, small, large = predicted(data())
    served, half = Served(Cascade(budget=budget, exploration=0.05), confidences, small, large), len(large) // 2
    at_random = budget * large.mean() + (1.0 - budget) * small.mean()
    assert served.share < budget + 0.02
    assert served.loss(half) < large[half:].mean() + within
    assert large.mean() + 2 * within < at_random, "asked as often, but at random"


def test_before_there_is_feedback_the_budget_is_spent_at_random():
    policy = Cascade(budget=0.25)
    assert {*policy.chances(SelectionState(), *MODELS)} == {0.25}
    assert policy.weights(SelectionState(), MODELS) == {SMALL: 0.75, LARGE: 0.25}
    assert policy.by_features(SelectionState(), [SMALL]) is None


def test_candidates_between_the_first_and_the_last_are_not_asked():
    choice = Cascade(budget=1.0).by_features(SelectionState(), ["a:1", "b:1", "c:1"])
    decision = choice.given([0.5]).select(random.Random(1))
    assert (decision.models, decision.served, list(choice.weights)) == (("a:1", "c:1"), ("c:1",), ["a:1", "b:1", "c:1"])
