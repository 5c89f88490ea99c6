"""Laws that every registered selection policy obeys. A policy that is excused from one is named with the reason."""

import math
import pickle
import random
from dataclasses import astuple
from itertools import pairwise

import pytest
from builders.bandits import prepared_for, queries_of

from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.registry import POLICIES, make_policy
from clipper_stream.selection.rng import query_rng
from clipper_stream.selection.state import ModelTotals, SelectionState, merge

CANDIDATES = ("a:1", "b:1", "c:2")
KNOWN = {
    "a:1": ModelTotals(40.0, 8.0, 80.0, 16.0),
    "b:1": ModelTotals(30.0, 3.0, 75.0, 7.5),
    "c:2": ModelTotals(20.0, 9.0, 85.0, 38.25),
    "left:1": ModelTotals(7.0, 1.0, 9.0, 1.25),
}
STATE = SelectionState(KNOWN)
LEARNING = [name for name in POLICIES if name not in ("single", "split", "cascade")]
"""Those of which one learns who is best; `cascade` learns when to ask the last one."""
EXPLORING = {name: "exploration" for name in LEARNING if hasattr(make_policy(name), "exploration")}
POLICIES_UNDER_LAW = [
    *map(make_policy, POLICIES),
    *(make_policy(name, {"half_life": 50.0}) for name in [*LEARNING, "cascade"]),
    make_policy("tsallis_inf", {"delay": 20.0}),
]
EXCUSED = {
    "joins": {
        "single": "it serves the model that its operator named",
        "cascade": "it asks the first and the last candidate, in the operator's order",
        "epsilon_greedy": "weights are the greedy or the uniform share; a new model has the mean loss instead",
        "lin_ucb": "as epsilon_greedy; for a query with features a new model is believed to have the mean loss",
        "thompson": "weights are probabilities of being the best; a new model has the mean loss instead",
    },
    "repaired": {"exp4_clipper": "what divides by a small weight is charged more than a half-life forgets"},
    "partitions": {"exp4_clipper": "it divides by shares that each partition has of its own, as the original does"},
}
REPAIRED = {"a:1": 0.0, "b:1": 0.3}
FEATURES = [(), (0.5,), (-1.0, 2.0, 0.0), (1e6,) * 16]
"""Of a query that has none, few, several, and the largest."""


def not_excused(law: str, names) -> list[str]:
    return [name for name in names if name not in EXCUSED[law]]


each_policy = pytest.mark.parametrize("policy", POLICIES_UNDER_LAW, ids=str)


def test_every_excuse_names_a_registered_policy():
    assert {name for excused in EXCUSED.values() for name in excused} <= set(POLICIES)


STATES = {
    "new": [ModelTotals()] * 3,
    "known": [KNOWN[model] for model in CANDIDATES],
    "one bad one perfect": [ModelTotals(1e6, 1e6, 1e8, 1e8), ModelTotals(1e6, 0.0, 1e8, 0.0), ModelTotals()],
    "all bad": [ModelTotals(1e6, 1e6, 1e6, 1e6)] * 3,
    "all perfect": [ModelTotals(1e6, 0.0, 1e6, 0.0)] * 3,
    "one huge weight": [ModelTotals(1.0, 1.0, 1e12, 1e12), ModelTotals(1e6, 5e5, 1e6, 5e5), ModelTotals(1.0, 0.0, 1.0)],
    "one forgotten": [ModelTotals(*[1e-300] * 4), ModelTotals(1e6, 5e5, 1e6, 5e5), ModelTotals()],
    "all forgotten": [ModelTotals(*[5e-324] * 4), ModelTotals(5e-324, 0.0, 5e-324, 0.0), ModelTotals()],
}


@each_policy
@pytest.mark.parametrize("totals", STATES.values(), ids=STATES)
def test_weights_sum_to_one_in_any_state_and_whoever_is_asked_has_a_propensity(policy: SelectionPolicy, totals):
    state = SelectionState(dict(zip(CANDIDATES, totals, strict=True)))
    weights = policy.weights(state, CANDIDATES)
    assert tuple(weights) == CANDIDATES
    assert sum(weights.values()) == pytest.approx(1.0, abs=1e-12)
    assert min(weights.values()) >= 0.0
    assert all(0.0 < each <= 1.0 for each in policy.select(state, CANDIDATES, query_rng(0, "0-0")).propensities)
    alone = policy.select(state, ["b:1"], query_rng(0, "0-1"))
    assert (alone.models, alone.served) == (("b:1",), ("b:1",))
    assert alone.propensities == pytest.approx((1.0,))


@pytest.mark.parametrize("features", FEATURES, ids=len)
@each_policy
def test_whatever_the_features_models_are_asked_as_often_as_the_propensities_say(policy: SelectionPolicy, features):
    prepared = prepared_for(policy, learned_by_features(policy), CANDIDATES, features)
    assert tuple(prepared.weights) == CANDIDATES
    chances = [end - start for start, end in pairwise((0.0, *prepared.bounds, 1.0))]
    asked = dict.fromkeys(CANDIDATES, 0.0)
    for decision, chance in zip(prepared.decisions, chances, strict=True):
        for model in decision.models:
            asked[model] += chance
    for decision in prepared.decisions:
        for model, propensity in zip(decision.models, decision.propensities, strict=True):
            assert 0.0 < propensity <= 1.0
            assert math.isclose(propensity, asked[model], abs_tol=1e-12)


@each_policy
def test_features_make_no_difference_where_there_are_none_or_the_policy_says_so(policy: SelectionPolicy):
    state, feedback = learned_by_features(policy), ({"a:1": 1.0}, {"a:1": 0.5})
    for features in ((), (0.5,)) if policy.by_features(STATE, CANDIDATES) is None else ((),):
        assert prepared_for(policy, state, CANDIDATES, features) == policy.prepare(state, CANDIDATES)
        assert policy.observe_for(state, *feedback, features) == policy.observe(state, *feedback)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_that_looks_at_no_features_keeps_what_another_has_learned_from_them(name):
    state = learned_by_features(make_policy("lin_ucb"))
    after = make_policy(name).observe(state, {"a:1": 1.0}, {"a:1": 0.5})
    assert after.of("a:1").moments == state.of("a:1").moments != ()


@each_policy
def test_what_was_pickled_is_the_same_decides_the_same_and_learns_the_same_bits(policy: SelectionPolicy):
    for thing in (policy, STATE, policy.prepare(STATE, CANDIDATES)):
        assert pickle.loads(pickle.dumps(thing)) == thing
    copy, state = pickle.loads(pickle.dumps((policy, STATE)))
    for query in range(50):
        decision = copy.select(state, CANDIDATES, query_rng(9, f"1-{query}"))
        assert policy.select(STATE, CANDIDATES, query_rng(9, f"1-{query}")) == decision
    assert repr(_learned_from_log(policy)) == repr(_learned_from_log(copy)), "to the bit"


@each_policy
def test_deciding_and_learning_change_neither_state_nor_policy(policy: SelectionPolicy):
    before = pickle.dumps((policy, STATE))
    decision = policy.select(STATE, CANDIDATES, random.Random(5))
    assert policy.prepare(STATE, CANDIDATES).select(random.Random(5)) == decision, "any source of numbers will do"
    policy.weights(STATE, CANDIDATES)
    after = policy.observe(STATE, {"a:1": 1.0}, {"a:1": 0.5})
    assert after is not STATE
    assert policy.observe(STATE, {}, {}) == STATE
    assert pickle.dumps((policy, STATE)) == before
    with pytest.raises(TypeError):
        STATE.totals["a:1"] = ModelTotals()  # type: ignore[index]
    left = after.of("left:1")
    assert left.count > 0.0, "a model that left keeps its totals and its loss on average"
    assert left.loss / left.count == pytest.approx(1.0 / 7.0)


@pytest.mark.parametrize("name", LEARNING)
def test_the_model_with_steadily_lower_loss_ends_with_the_largest_weight(name):
    policy, error = make_policy(name), {"a:1": 0.3, "b:1": 0.1, "c:2": 0.3}
    *_, (_, state) = queries_of(policy, error, 3_000, 4)
    weights = policy.weights(state, CANDIDATES)
    assert max(weights, key=weights.__getitem__) == "b:1"


@pytest.mark.parametrize("name", not_excused("repaired", LEARNING))
def test_with_a_half_life_a_repaired_model_is_trusted_again(name):
    policy = make_policy(name, {"half_life": 100.0})
    *_, (_, state) = queries_of(policy, {"a:1": 0.9, "b:1": 0.3}, 1_000, 2)
    later = [policy.weights(one, CANDIDATES[:2])["a:1"] for _, one in queries_of(policy, REPAIRED, 2_000, 3, state)]
    assert later[0] < 0.2
    assert sum(later[-500:]) / 500 > 0.6


@pytest.mark.parametrize(("name", "parameter"), [("epsilon_greedy", "epsilon"), *EXPLORING.items()])
def test_what_is_explored_is_spread_evenly(name, parameter):
    good, bad = ModelTotals(1e6, 1e5, 1e6, 1e5), ModelTotals(1e6, 9e5, 1e6, 9e5)
    prepared = make_policy(name, {parameter: 0.1}).prepare(SelectionState({"a:1": good, "b:1": bad}), ("a:1", "b:1"))
    chances = {decision.served: decision.served_propensity for decision in prepared.decisions}
    assert chances == pytest.approx({("a:1",): 0.95, ("b:1",): 0.05})


@pytest.mark.parametrize("name", not_excused("joins", POLICIES))
def test_a_model_that_joins_has_the_mean_weight_of_the_others(name):
    weights = make_policy(name).weights(STATE, [*CANDIDATES, "new:1"])
    mean = sum(weights[model] for model in CANDIDATES) / len(CANDIDATES)
    assert math.isclose(weights["new:1"], mean, rel_tol=1e-9)


@each_policy
def test_a_state_is_bounded_by_its_models_and_features_not_by_its_feedback(policy: SelectionPolicy):
    state, world = SelectionState(), random.Random(8)
    for _ in range(1_000):
        features, losses = [world.random()] * world.randrange(5), {"a:1": world.random(), "b:1": 1.0}
        state = policy.observe_for(state, losses, {"a:1": 0.3, "b:1": 0.7}, features)
    assert set(state.totals) == {"a:1", "b:1"}
    # of a constant and four features: 15 products, 5 with the loss; of the 12 bins of a cascade 91 and 13
    assert len(state.of("a:1").moments) in (0, 20, 104)


def learned_apart(policy, feedback_of):
    """What three partitions learn from 300 feedbacks, and what one would from all; the first one falls silent."""
    parts, whole = [SelectionState()] * 3, SelectionState()
    world, at_ms = random.Random(6), 1_700_000_000_000
    for number in range(300):
        loss, propensity, features = feedback_of(world)
        feedback = ({(model := world.choice(CANDIDATES)): loss}, {model: propensity}, features)
        partition = 0 if number < 50 else world.choice((1, 2))
        at_ms += world.randrange(1_000)
        parts[partition] = policy.observe_at(at_ms, parts[partition], *feedback)
        whole = policy.observe_at(at_ms, whole, *feedback)
    return parts, whole, at_ms


@pytest.mark.parametrize("name", not_excused("partitions", POLICIES))
def test_without_forgetting_partitions_add_up_to_the_whole(name):
    def exact_in_binary(world):  # so that sums are exact in any order
        features = [world.choice((-1.0, 0.0, 0.25)) for _ in range(world.randrange(4))]
        return world.choice((0.0, 0.25, 1.0)), world.choice((0.125, 0.5, 1.0)), features

    policy = make_policy(name)
    parts, whole, _ = learned_apart(policy, exact_in_binary)
    assert merge(parts) == whole
    for features in FEATURES:
        assert prepared_for(policy, merge(parts), CANDIDATES, features) == prepared_for(
            policy, whole, CANDIDATES, features
        )


@pytest.mark.parametrize("name", not_excused("partitions", LEARNING))
def test_what_ages_by_time_adds_up_however_it_is_divided(name):
    def any_feedback(world):
        return world.random(), world.uniform(0.1, 1.0), [world.gauss(0.0, 1.0)]

    parts, whole, at_ms = learned_apart(make_policy(name, {"half_life_s": 5.0}), any_feedback)
    merged = merge(parts)
    assert (merged.at_ms, merged.half_life_s) == (whole.at_ms, 5.0)
    for model in CANDIDATES:
        assert _numbers(merged.of(model)) == pytest.approx(_numbers(whole.of(model)), rel=1e-9)
    assert parts[0].aged(at_ms).of("a:1").count < 0.01 * parts[0].of("a:1").count, "also one that hears nothing"


def test_a_change_of_the_half_life_counts_from_the_next_feedback_on():
    fast, slow, never = (make_policy("exp3", given) for given in ({"half_life_s": 1}, {"half_life_s": 10.0}, {}))
    state = SelectionState()
    counts = {10: (fast, 1.0), 11: (slow, 1.5), 21: (slow, 1.75), 31: (never, 1.875), 99: (fast, 2.875)}
    for at_s, (policy, count) in counts.items():
        state = policy.observe_at(1_000 * at_s, state, {"a:1": 0.0}, {"a:1": 1.0})
        assert state.of("a:1").count == count
    assert fast.observe_at(99_000, state, {}, {}) is state
    assert repr(state.half_life_s) == "1.0", "a row that is written and read again has the same bytes"
    assert fast.observe_at(90_000, state, {"a:1": 0.0}, {"a:1": 1.0}).of("a:1").count == 3.875, "time goes not back"


def _learned_from_log(policy: SelectionPolicy) -> SelectionState:
    state, world = SelectionState(), random.Random(11)
    for _ in range(500):
        model = world.choice(CANDIDATES)
        losses, propensities = {model: world.random()}, {model: world.uniform(0.01, 1.0)}
        state = policy.observe_for(state, losses, propensities, [world.gauss(0.0, 1.0), world.random()])
    return state


def learned_by_features(policy: SelectionPolicy) -> SelectionState:
    """What the policy makes of a log in which other models are right for other features."""
    world, state = random.Random(12), STATE
    for _ in range(60):
        features = [world.uniform(-1.0, 1.0) for _ in range(2)]
        losses = {"a:1": float(features[0] > 0.0), "b:1": float(features[0] < 0.0), "c:2": float(features[1] > 0.5)}
        state = policy.observe_for(state, losses, dict.fromkeys(losses, 0.5), features)
    return state


def _numbers(totals: ModelTotals) -> list[float]:
    *sums, moments, _ = astuple(totals)
    return [*sums, *moments]


@pytest.mark.parametrize("feedbacks", [1e4, pytest.param(1e8, marks=pytest.mark.slow), 1e12])
@pytest.mark.parametrize("name", LEARNING)
def test_a_model_that_joins_is_known_as_soon_whatever_the_history(name, feedbacks):
    policy = make_policy(name)
    history = {  # of the second, which is asked seldom, the sums are as if it had been asked always
        "a:1": ModelTotals(0.95 * feedbacks, 0.095 * feedbacks, feedbacks, 0.1 * feedbacks),
        "b:1": ModelTotals(0.05 * feedbacks, 0.015 * feedbacks, feedbacks, 0.3 * feedbacks),
    }
    models = [*history, "new:1"]

    def weights_of(loss):
        learned = queries_of(policy, {"a:1": 0.1, "b:1": 0.3, "new:1": loss}, 1_500, 1, SelectionState(history))
        return [policy.weights(state, models)["new:1"] for _, state in learned]

    assert 0.4 * sum(weights_of(0.5)) <= 100.0, "asked always it would lose 600 more than the best"
    assert weights_of(0.0)[-1] > 0.5
