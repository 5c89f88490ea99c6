import numpy as np
import pytest
from builders.columns import logged
from builders.known_truth import MODELS, truth

from clipper_stream.evaluation.candidates.candidate import (
    Candidate,
    Ensemble,
    FixedPolicy,
    LearningPolicy,
    OneModel,
    StationaryCandidate,
)
from clipper_stream.evaluation.log.configuration import Configuration
from clipper_stream.selection.registry import POLICIES, make_policy
from clipper_stream.selection.state import ModelTotals, SelectionState

BAD, GOOD = ModelTotals(50.0, 40.0, 50.0, 40.0), ModelTotals(50.0, 5.0, 50.0, 5.0)


def test_each_context_has_its_own_choice():
    columns = truth(50, 1, contexts=3).whole()
    states = {"north": SelectionState({"a:1": BAD, "b:1": GOOD}), None: SelectionState({"a:1": GOOD, "b:1": BAD})}
    policy = make_policy("exp3")
    found = FixedPolicy(policy=policy, models=MODELS[:2], states=states).targeted(columns)
    for code, context in enumerate(columns.contexts):
        weights = policy.prepare(states.get(context, SelectionState()), MODELS[:2])
        expected = [decision.served_propensity for decision in weights.decisions]
        rows = found.target[columns.context == code]
        assert np.array_equal(rows, np.broadcast_to([*expected, 0.0], rows.shape))


def test_a_model_without_a_column_gets_one():
    columns = truth(5, 1).whole()
    for candidate in (OneModel(model="new:1"), FixedPolicy(policy=make_policy("single"), models=("new:1",))):
        found = candidate.targeted(columns)
        assert found.columns.models == (*MODELS, "new:1")
        assert found.target.tolist() == [[0.0, 0.0, 0.0, 1.0]] * 5


def test_an_ensemble_is_certain_of_its_own_column():
    columns = logged(np.ones((2, 2)), np.zeros((2, 2)), outputs=[["a", "b"], ["b", "b"]], labels=["a", "b"])
    found = Ensemble(weights={"m0:1": 1.0, "m1:1": 2.0}).targeted(columns)
    assert found.columns.models[-1] == "ensemble m0:1=1+m1:1=2"
    assert found.target.tolist() == [[0.0, 0.0, 1.0]] * 2
    assert found.columns.loss[:, -1].tolist() == [1.0, 0.0]


def test_a_frozen_ensemble_policy_has_the_weights_of_each_context():
    given = {"outputs": [["a", "b"]] * 2, "labels": ["a"] * 2, "contexts": (None, "x"), "context": [0, 1]}
    columns = logged(np.ones((2, 2)), np.zeros((2, 2)), **given)
    states = {None: SelectionState({"m0:1": BAD, "m1:1": GOOD}), "x": SelectionState({"m0:1": GOOD, "m1:1": BAD})}
    found = FixedPolicy(policy=make_policy("exp4"), models=columns.models, states=states).targeted(columns)
    assert found.columns.loss[:, -1].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("rows", [0, 20])
@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_has_a_target_that_is_a_distribution(name, rows):
    found = FixedPolicy(policy=make_policy(name), models=MODELS).targeted(truth(rows, 1, contexts=3).whole())
    assert found.target.shape == (rows, len(found.columns.models))
    assert np.allclose(found.target.sum(axis=1), 1.0, rtol=0, atol=1e-9)


WEEK = {1: Configuration(models=("b:1", "a:1")), 2: Configuration(models=("a:1", "b:1", "c:1"))}
"""The floor is b:1, until its place is taken; c:1 is promoted. Of a third revision nothing is known."""


@pytest.mark.parametrize(
    ("candidate", "targets"),
    [
        ({"policy": make_policy("single")}, [[0, 1, 0], [1, 0, 0], [1, 0, 0]]),
        ({"policy": make_policy("split")}, [[1 / 2, 1 / 2, 0], [1 / 3] * 3, [1 / 3] * 3]),
        ({"policy": make_policy("split"), "models": MODELS[1:], "named": True}, [[0, 1 / 2, 1 / 2]] * 3),
    ],
    ids=["the first", "all alike", "named ones"],
)
def test_a_policy_chooses_among_the_candidates_of_the_time_unless_models_are_named(candidate, targets):
    columns = logged(np.ones((3, 3)), np.zeros((3, 3)), models=MODELS, revision=[1, 2, 3], configs=WEEK)
    for kind in (FixedPolicy, LearningPolicy):
        found = kind(**{"models": MODELS} | candidate).targeted(columns).target
        if kind is FixedPolicy or candidate["policy"].name == "split":
            assert found.tolist() == pytest.approx(np.array(targets))


def test_an_ensemble_of_the_candidates_of_the_time_needs_no_others():
    given = {"outputs": [["b", "b", None], ["a", "b", "b"]], "labels": ["b", "b"], "models": MODELS}
    columns = logged([[1.0, 1.0, 0.0], [1.0] * 3], np.zeros((2, 3)), revision=[1, 2], configs=WEEK, **given)
    found = FixedPolicy(policy=make_policy("exp4"), models=MODELS).targeted(columns)
    assert found.columns.loss[:, -1].tolist() == [0.0, 0.0]
    assert found.columns.propensity[:, -1].tolist() == [1.0, 1.0]


def test_what_learns_is_told_from_what_does_not():
    assert isinstance(OneModel(model="a:1"), StationaryCandidate)
    learning = LearningPolicy(policy=make_policy("exp3"), models=("a:1",))
    assert isinstance(learning, Candidate)
    assert not isinstance(learning, StationaryCandidate)
