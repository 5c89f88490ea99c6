import pytest
from builders.known_truth import MODELS

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.sequential.replay import CandidateState, policy_choices
from clipper_stream.selection.distribution import ActionDistribution, forced_decision, one_of
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import ModelTotals, SelectionState

EXP3 = make_policy("exp3", {"eta": 0.5})


def test_a_policy_begins_with_what_was_learned():
    bad, good = ModelTotals(9.0, 9.0, 9.0, 9.0), ModelTotals(9.0, 0.0, 9.0, 0.0)
    learner = CandidateState(EXP3, MODELS, {(None, 2): SelectionState({"a:1": bad, "b:1": good})})
    assert learner.standing(None, 0).target[0] < 1 / 3


def test_an_ensemble_serves_its_models_together():
    found = policy_choices(make_policy("exp4"), SelectionState(), MODELS)(())
    assert found.together == MODELS
    assert found.target == (0.0, 0.0, 0.0)


class TwoSets(SelectionPolicy):
    name = "two_sets"

    def prepare(self, state, candidates):
        alone = one_of(dict.fromkeys(candidates, 0.5), [0.5, 0.5])
        return ActionDistribution(alone.weights, (alone.decisions[0], forced_decision(candidates)), alone.bounds)

    def observe(self, state, losses, propensities):
        return state


def test_a_policy_that_draws_among_sets_or_has_no_models_is_refused():
    with pytest.raises(InvalidSetting, match="among 2 sets"):
        policy_choices(TwoSets(), SelectionState(), ["a:1", "b:1"])
    with pytest.raises(InvalidSetting, match="no model"):
        CandidateState(EXP3, [])
