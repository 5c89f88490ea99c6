"""Properties of state, learning and combining over generated cases."""

from functools import reduce
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from clipper_stream.combining.combiner import combine
from clipper_stream.feedback.update import GivenLoss, Label, LoggedDecision, fold, loss_of
from clipper_stream.selection.distribution import one_of
from clipper_stream.selection.policies.exp4 import Exp4
from clipper_stream.selection.state import ModelTotals, SelectionState, merge

MODELS = ("a:1", "b:1", "c:1", "d:2")
LARGEST = 1.0 - 2.0**-53

# fractions that are exact in binary, with sums that stay exact: then addition is associative
exact = st.integers(0, 2**20).map(lambda number: number / 64)
exact_totals = st.builds(ModelTotals, exact, exact, exact, exact)
states = st.dictionaries(st.sampled_from(MODELS), exact_totals).map(SelectionState)


@given(states, states, states)
def test_merging_is_associative_and_commutative_with_the_empty_state_as_zero(first, second, third):
    assert merge([merge([first, second]), third]) == merge([first, merge([second, third])])
    assert merge([first, second]) == merge([second, first])
    assert merge([first, SelectionState()]) == first


@st.composite
def feedbacks(draw):
    models = draw(st.lists(st.sampled_from(MODELS), min_size=1, max_size=4, unique=True))
    answered = draw(st.lists(st.sampled_from(models), unique=True))
    served = draw(st.sampled_from([tuple(models), tuple(models[:1])]))
    decision = LoggedDecision(
        outputs={model: draw(st.integers(0, 2)) for model in answered},
        propensities={model: draw(st.sampled_from([0.125, 0.25, 0.5, 1.0])) for model in models},
        served=served,
        served_propensity=draw(st.sampled_from([0.125, 1.0])),
        answer=draw(st.integers(0, 2)),
        default=draw(st.booleans()),
    )
    truth = draw(st.integers(0, 2).map(Label) | st.sampled_from([0.0, 0.25, 1.0]).map(GivenLoss))
    return draw(st.integers(0, 2)), decision, truth


@given(st.lists(feedbacks(), max_size=30), st.sampled_from([None, 1.0, 7.5]))
def test_without_discount_a_fold_is_the_merge_of_its_partitions_folds(log, half_life):
    def folded(*partitions):
        known = (one[1:] for one in log if one[0] in partitions)
        return reduce(lambda state, one: fold(state, one[0], one[1], policy, "zero_one"), known, SelectionState())

    policy = Exp4(half_life=half_life)
    whole = folded(0, 1, 2)
    assert half_life is not None or merge(map(folded, range(3))) == whole
    for totals in whole.totals.values():
        assert totals.loss <= totals.count
        assert totals.weighted_loss <= totals.weighted_count


def drawing(number):
    """A generator of one random number."""
    return SimpleNamespace(random=lambda: number)


shares = st.dictionaries(st.sampled_from(MODELS), st.floats(0.0, 1.0))


def outputs(values):
    return st.dictionaries(st.sampled_from(MODELS), values, min_size=1)


@given(outputs(st.floats(-1e6, 1e6)), shares, st.integers(0, 3))
def test_a_mean_lies_between_the_outputs_and_confidence_is_a_share(said, weights, missing):
    combined = combine("mean", said, weights, len(said) + missing)
    low, high = min(said.values()), max(said.values())
    rounding = 1e-9 * max(1.0, abs(low), abs(high))
    assert low - rounding <= combined.output <= high + rounding
    assert 0.0 <= combined.confidence <= len(said) / (len(said) + missing)


@given(outputs(st.integers(0, 2)), shares, st.data())
def test_a_vote_is_one_of_the_outputs_and_does_not_depend_on_their_order(said, weights, data):
    combined = combine("vote", said, weights, len(said))
    assert combined.output in said.values()
    assert combined.confidence >= 1 / len(said)
    shuffled = dict(data.draw(st.permutations([*said.items()])))
    assert combine("vote", shuffled, weights, len(said)) == combined


@given(
    st.sampled_from(["zero_one", "absolute", "squared"]),
    st.floats(-1e300, 1e300),
    st.integers() | st.floats() | st.booleans(),
)
def test_a_loss_of_numbers_is_between_zero_and_one(kind, label, output):
    assert 0.0 <= loss_of(kind, label, output) <= 1.0


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5).filter(lambda shares: sum(shares) > 1e-3))
def test_the_largest_random_number_draws_a_decision_that_has_a_probability(shares):
    total = sum(shares)
    weights = {f"m{number}:1": share / total for number, share in enumerate(shares)}
    decision = one_of(weights, weights.values()).select(drawing(LARGEST))
    assert decision.served_propensity > 0.0
