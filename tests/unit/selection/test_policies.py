"""What each policy does that the laws do not say."""

import math

import pytest
from builders.bandits import queries_of

from clipper_stream.errors import InvalidLabel, InvalidSetting, UnknownName
from clipper_stream.selection.policies.epsilon_greedy import EpsilonGreedy, mean_losses
from clipper_stream.selection.policies.exp3 import Exp3
from clipper_stream.selection.policies.exp4 import Exp4
from clipper_stream.selection.policies.operator_choice import Single, Split
from clipper_stream.selection.registry import POLICIES, make_policy
from clipper_stream.selection.state import ModelTotals, SelectionState, add_losses


def probabilities(policy, state, candidates) -> dict[tuple[str, ...], float]:
    return {d.served: d.served_propensity for d in policy.prepare(state, candidates).decisions}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Single(), {"a:1": 1.0}),
        (Single(model="b:1"), {"b:1": 1.0}),
        (Single(model="gone:1"), {"a:1": 1.0}),
        (Split(shares={"a:1": 3, "b:1": 1, "gone:1": 4}), {"a:1": 0.75, "b:1": 0.25}),
        (Split(shares={"gone:1": 1}), {"a:1": 1 / 3, "b:1": 1 / 3, "c:1": 1 / 3}),
    ],
    ids=str,
)
def test_an_operators_choice_is_kept_among_the_candidates_that_are_there(policy, expected):
    found = probabilities(policy, SelectionState(), ["a:1", "b:1", "c:1"])
    assert found == {(model,): pytest.approx(chance) for model, chance in expected.items()}


def test_epsilon_greedy_prefers_the_lowest_mean_not_the_lowest_sum():
    state = SelectionState({"a:1": ModelTotals(1000.0, 50.0), "b:1": ModelTotals(100.0, 10.0)})
    assert EpsilonGreedy(epsilon=0.2).weights(state, ["a:1", "b:1"]) == {"a:1": 0.9, "b:1": 0.1}


def test_epsilon_greedy_does_not_follow_one_lucky_answer_of_a_new_model():
    state = SelectionState({"a:1": ModelTotals(1000.0, 50.0), "b:1": ModelTotals(1000.0, 200.0)})
    lucky = add_losses(state, {"new:1": 0.0}, {"new:1": 0.1})
    assert mean_losses(state, ["a:1", "b:1", "new:1"])["new:1"] == pytest.approx(0.125, rel=0.01)
    weights = EpsilonGreedy().weights(lucky, ["a:1", "b:1", "new:1"])
    assert max(weights, key=weights.__getitem__) == "a:1"


def test_a_half_life_of_n_halves_what_n_feedbacks_ago_was_learned():
    policy = Exp4(half_life=4.0)
    state = policy.observe(SelectionState(), {"a:1": 1.0}, {"a:1": 1.0})
    for _ in range(4):
        state = policy.observe(state, {"b:1": 0.0}, {"b:1": 1.0})
    assert state.of("a:1").loss == pytest.approx(0.5)


def test_a_policy_can_be_changed_and_keeps_what_was_learned():
    *_, (_, state) = queries_of(Exp3(exploration=0.2), {"a:1": 0.1, "b:1": 0.5}, 3_000, 2)
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


def test_an_unknown_policy_or_parameter_is_answered_with_those_that_exist():
    with pytest.raises(UnknownName, match=f"use one of {', '.join(sorted(POLICIES))}"):
        make_policy("exp5")
    with pytest.raises(InvalidSetting, match="use one of eta, exploration, half_life"):
        make_policy("exp3", {"gamma": 0.1})


OUT_OF_BOUNDS: dict[str, dict[str, list]] = {
    "epsilon_greedy": {"epsilon": [-0.1]},
    "cascade": {"budget": [-0.1, 1.1, None], "exploration": [2], "half_life": [0]},
    "exp3": {"eta": [0, "0.1", True], "exploration": [1.5], "half_life": [-1]},
    "exp4": {"eta": [math.nan], "half_life": [math.inf]},
    "exp4_clipper": {"eta": [0], "half_life": [0]},
    "lin_ucb": {"alpha": [-0.1], "ridge": [0, None], "exploration": [2], "half_life": [0]},
    "single": {"model": [1]},
    "split": {"shares": [{"a:1": -1}, {"a:1": 0}, ["a:1"]]},
    "thompson": {"exploration": [1.1], "half_life": [0]},
    "tsallis_inf": {"rate": [0], "delay": [-1], "half_life": [0]},
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_parameter_outside_its_bound_is_refused(name):
    for parameter, values in OUT_OF_BOUNDS[name].items():
        for value in values:
            with pytest.raises(InvalidSetting, match="give"):
                make_policy(name, {parameter: value})
