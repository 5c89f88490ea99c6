import math

import pytest
from builders.logged_truth import MODELS

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.sequential.replay import CandidateState, ReplayedQuery, policy_choices, replay_rng
from clipper_stream.selection.distribution import ActionDistribution, forced_decision, one_of
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.rng import query_rng
from clipper_stream.selection.state import ModelTotals, SelectionState, merge

EXP3 = make_policy("exp3", {"eta": 0.5})


def feed(learner, place, model, loss, at_ms=0, offset=0):
    query = ReplayedQuery(0, 0, place, 0, feedback_at_ms=at_ms, feedback_offset=offset)
    learner.expect(query, {model: loss}, {model: 0.5})


def test_without_a_context_partitions_are_summed_in_their_order():
    learner = CandidateState(EXP3, MODELS)
    for partition, loss in ((3, 0.1), (0, 0.7), (2, 0.3)):
        feed(learner, (None, partition), "svm:1", loss, offset=partition)
    learner.advance(math.inf)
    parts = [EXP3.observe(SelectionState(), {"svm:1": loss}, {"svm:1": 0.5}) for loss in (0.7, 0.3, 0.1)]
    assert learner.state(None, 1) == merge(parts)


def test_a_context_learns_alone():
    learner = CandidateState(EXP3, MODELS)
    feed(learner, ("north", 1), "svm:1", 1.0)
    feed(learner, ("north", 1), "knn:1", 0.0)
    learner.advance(1)
    assert learner.standing("north", 1).target[0] < 1 / 3
    assert learner.standing("south", 1).target[0] == pytest.approx(1 / 3)
    assert learner.standing(None, 1).target[0] == pytest.approx(1 / 3)


def test_a_policy_begins_with_what_was_learned():
    start = {
        (None, 2): SelectionState({"svm:1": ModelTotals(9.0, 9.0, 9.0, 9.0), "knn:1": ModelTotals(9.0, 0.0, 9.0, 0.0)})
    }
    assert CandidateState(EXP3, MODELS, start).standing(None, 0).target[0] < 1 / 3


def test_feedback_is_learned_in_the_order_in_which_it_came_and_not_before():
    learner = CandidateState(make_policy("exp3", {"half_life": 1.0}), MODELS)
    feed(learner, (None, 0), "svm:1", 1.0, at_ms=20, offset=5)
    feed(learner, (None, 0), "svm:1", 0.0, at_ms=10, offset=4)
    learner.advance(20)
    assert learner.state(None, 0).of("svm:1").loss == 0.0
    learner.advance(21)
    assert learner.state(None, 0).of("svm:1").count == 1.5
    assert learner.state(None, 0).of("svm:1").loss == 1.0


def test_an_ensemble_serves_its_models_together():
    found = policy_choices(make_policy("exp4"), SelectionState(), MODELS).otherwise
    assert found.together == MODELS
    assert found.target == (0.0, 0.0, 0.0)


class TwoSets(SelectionPolicy):
    name = "two_sets"

    def prepare(self, state, candidates):
        alone = one_of(dict.fromkeys(candidates, 0.5), [0.5, 0.5])
        return ActionDistribution(alone.weights, (alone.decisions[0], forced_decision(candidates)), alone.bounds)

    def observe(self, state, losses, propensities):
        return state


def test_a_policy_that_draws_among_sets_is_refused():
    with pytest.raises(InvalidSetting, match="draws among 2 sets"):
        policy_choices(TwoSets(), SelectionState(), ["a:1", "b:1"])


def test_a_policy_without_models_is_refused():
    with pytest.raises(InvalidSetting, match="no model"):
        CandidateState(EXP3, [])


def test_replay_draws_other_numbers_than_the_router_that_was_logged():
    assert replay_rng(7, 3, 41).random() != query_rng(7, "3-41").random()
    assert replay_rng(7, 3, 41).random() == replay_rng(7, 3, 41).random()
