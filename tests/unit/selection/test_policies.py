"""What each policy does that the laws do not say."""

import math
import random

import pytest

from clipper_stream.errors import InvalidLabel, InvalidSetting, UnknownName
from clipper_stream.selection.policies.epsilon_greedy import EpsilonGreedy, mean_losses
from clipper_stream.selection.policies.exp3 import Exp3
from clipper_stream.selection.policies.exp4 import Exp4
from clipper_stream.selection.policies.operator_choice import Single, Split
from clipper_stream.selection.registry import POLICIES, make_policy
from clipper_stream.selection.rng import query_rng
from clipper_stream.selection.state import ModelTotals, SelectionState, add_losses

ALL_ASKED = {"a:1": 1.0, "b:1": 1.0}


def probabilities(policy, state, candidates) -> dict[tuple[str, ...], float]:
    return {d.served: d.served_propensity for d in policy.prepare(state, candidates).decisions}


def test_single_asks_the_first_candidate_or_the_named_one():
    state = SelectionState()
    assert probabilities(Single(), state, ["a:1", "b:1"]) == {("a:1",): 1.0}
    assert probabilities(Single(model="b:1"), state, ["a:1", "b:1"]) == {("b:1",): 1.0}
    assert probabilities(Single(model="gone:1"), state, ["a:1", "b:1"]) == {("a:1",): 1.0}


def test_split_scales_its_shares_over_the_candidates_that_are_there():
    split = Split(shares={"a:1": 3, "b:1": 1, "gone:1": 4})
    assert probabilities(split, SelectionState(), ["a:1", "b:1", "c:1"]) == {("a:1",): 0.75, ("b:1",): 0.25}


def test_split_without_a_named_candidate_treats_all_alike():
    split = Split(shares={"gone:1": 1})
    assert split.weights(SelectionState(), ["a:1", "b:1"]) == {"a:1": 0.5, "b:1": 0.5}


def test_epsilon_greedy_prefers_the_lowest_mean_not_the_lowest_sum():
    state = SelectionState({"a:1": ModelTotals(1000.0, 50.0), "b:1": ModelTotals(100.0, 10.0)})
    assert EpsilonGreedy(epsilon=0.2).weights(state, ["a:1", "b:1"]) == {"a:1": 0.9, "b:1": 0.1}


def test_epsilon_greedy_does_not_follow_one_lucky_answer_of_a_new_model():
    state = SelectionState({"a:1": ModelTotals(1000.0, 50.0), "b:1": ModelTotals(1000.0, 200.0)})
    lucky = add_losses(state, {"new:1": 0.0}, {"new:1": 0.1})
    assert mean_losses(state, ["a:1", "b:1", "new:1"])["new:1"] == pytest.approx(0.125, rel=0.01)
    weights = EpsilonGreedy().weights(lucky, ["a:1", "b:1", "new:1"])
    assert max(weights, key=weights.__getitem__) == "a:1"


def test_exp4_is_hedge_where_every_model_answers_every_feedback():
    policy, state = Exp4(eta=0.5), SelectionState()
    losses = [{"a:1": 1.0, "b:1": 0.0}, {"a:1": 0.25, "b:1": 1.0}, {"a:1": 1.0, "b:1": 0.0}]
    for loss in losses:
        state = policy.observe(state, loss, ALL_ASKED)
    expected = math.exp(-0.5 * 2.25) / (math.exp(-0.5 * 2.25) + math.exp(-0.5 * 1.0))
    assert policy.weights(state, ["a:1", "b:1"])["a:1"] == pytest.approx(expected, rel=1e-9)


def test_exp3_weighs_like_the_paper_where_all_models_have_the_same_history():
    state = SelectionState({"a:1": ModelTotals(9.0, 3.0, 50.0, 12.0), "b:1": ModelTotals(30.0, 3.0, 50.0, 7.0)})
    expected = math.exp(-0.2 * 12.0) / (math.exp(-0.2 * 12.0) + math.exp(-0.2 * 7.0))
    weights = Exp3(eta=0.2).weights(state, ["a:1", "b:1"])
    assert weights["a:1"] == pytest.approx(expected, rel=1e-9)


def test_exp3_asks_each_model_at_least_with_its_share_of_the_exploration():
    state = SelectionState({"a:1": ModelTotals(9.0, 9.0, 9e5, 9e5), "b:1": ModelTotals(9.0, 0.0, 9e5, 0.0)})
    chances = probabilities(Exp3(exploration=0.1), state, ["a:1", "b:1"])
    assert chances[("a:1",)] == pytest.approx(0.05)


def test_exp3_divides_the_loss_by_the_logged_propensity():
    state = Exp3().observe(SelectionState(), {"a:1": 0.5}, {"a:1": 0.125})
    assert state.of("a:1") == ModelTotals(1.0, 0.5, 8.0, 4.0)


def test_a_half_life_of_n_halves_what_n_feedbacks_ago_was_learned():
    policy = Exp4(half_life=4.0)
    state = policy.observe(SelectionState(), {"a:1": 1.0}, {"a:1": 1.0})
    for _ in range(4):
        state = policy.observe(state, {"b:1": 0.0}, {"b:1": 1.0})
    assert state.of("a:1").loss == pytest.approx(0.5)


def test_a_policy_can_be_changed_and_keeps_what_was_learned():
    state, world = SelectionState(), random.Random(2)
    exp3 = Exp3(exploration=0.2)
    for number in range(3_000):
        decision = exp3.select(state, ["a:1", "b:1"], query_rng(2, f"0-{number}"))
        model = decision.models[0]
        loss = float(world.random() < {"a:1": 0.1, "b:1": 0.5}[model])
        state = exp3.observe(state, {model: loss}, {model: decision.propensities[0]})
    for policy in (Exp4(), EpsilonGreedy()):
        assert policy.weights(state, ["a:1", "b:1"])["a:1"] > 0.9


@pytest.mark.parametrize("loss", [-0.1, 1.1, math.nan, math.inf])
def test_a_loss_outside_its_bounds_is_refused(loss):
    with pytest.raises(InvalidLabel, match=r"loss .* of a:1"):
        Exp3().observe(SelectionState(), {"a:1": loss}, {"a:1": 0.5})


@pytest.mark.parametrize("propensities", [{"a:1": 0.0}, {"a:1": 1.5}, {"a:1": math.nan}, {}])
def test_a_propensity_outside_its_bounds_is_refused(propensities):
    with pytest.raises(InvalidLabel, match=r"propensity .* of a:1"):
        Exp3().observe(SelectionState(), {"a:1": 1.0}, propensities)


def test_an_unknown_policy_is_answered_with_those_that_exist():
    with pytest.raises(UnknownName, match=f"use one of {', '.join(sorted(POLICIES))}"):
        make_policy("exp5")


def test_an_unknown_parameter_is_answered_with_those_that_exist():
    with pytest.raises(InvalidSetting, match="use one of eta, exploration, half_life"):
        make_policy("exp3", {"gamma": 0.1})


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("exp3", {"eta": 0}),
        ("exp3", {"eta": "0.1"}),
        ("exp3", {"eta": True}),
        ("exp3", {"exploration": 1.5}),
        ("exp3", {"half_life": -1}),
        ("exp3_ix", {"eta": 0}),
        ("exp3_ix", {"gamma": -0.1}),
        ("exp4", {"eta": math.nan}),
        ("exp4_clipper", {"eta": 0}),
        ("thompson", {"exploration": 1.1}),
        ("tsallis_inf", {"rate": 0}),
        ("tsallis_inf", {"delay": -1}),
        ("ucb1", {"padding": -1}),
        ("lin_ucb", {"alpha": -0.1}),
        ("lin_ucb", {"ridge": 0}),
        ("lin_ucb", {"ridge": None}),
        ("lin_ucb", {"exploration": 2}),
        ("ucb1", {"exploration": -0.1}),
        *(
            (name, {"half_life": 0})
            for name in ("exp3_ix", "exp4_clipper", "lin_ucb", "thompson", "tsallis_inf", "ucb1")
        ),
        ("exp4", {"half_life": math.inf}),
        ("epsilon_greedy", {"epsilon": -0.1}),
        ("split", {"shares": {"a:1": -1}}),
        ("split", {"shares": {"a:1": 0}}),
        ("split", {"shares": ["a:1"]}),
        ("single", {"model": 1}),
    ],
)
def test_a_parameter_outside_its_bound_is_refused(name, parameters):
    with pytest.raises(InvalidSetting, match="give"):
        make_policy(name, parameters)
