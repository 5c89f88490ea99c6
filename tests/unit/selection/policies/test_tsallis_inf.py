"""Tsallis-INF needs no tuning, and its weights are those of the papers."""

import math

import pytest

from clipper_stream.selection.policies.tsallis_inf import TsallisInf, feedbacks
from clipper_stream.selection.state import ModelTotals, SelectionState, add_losses

MODELS = ("a:1", "b:1", "c:1", "d:1")


def same_history(losses, count):
    """All models have the same counts, together `count` feedbacks, so that par drops out."""
    each = count / len(losses)
    return SelectionState(
        {model: ModelTotals(each, 0.0, count, loss) for model, loss in zip(MODELS, losses, strict=False)}
    )


def by_bisection(weight_of, low, high):
    """The shift at which the weights sum to 1; the sum increases with the shift."""
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if sum(weight_of(middle)) > 1.0 else (middle, high)
    return weight_of(low)


@pytest.mark.parametrize("losses", [(3.0, 9.0, 9.5, 40.0), (0.0, 0.0, 0.0, 0.0), (0.0, 1e4, 1e4, 1e4)])
def test_the_weights_are_the_papers_where_all_have_the_same_history(losses):
    eta = 2.0 / math.sqrt(100.0)
    expected = by_bisection(
        lambda x: [4.0 / (eta * (loss - x)) ** 2 for loss in losses], min(losses) - 1e6, min(losses) - 1e-9
    )
    weights = TsallisInf().weights(same_history(losses, 100.0), MODELS)
    assert list(weights.values()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("delay", [0.5, 10.0, 1_000.0])
def test_with_a_delay_the_weights_minimise_loss_and_both_entropies(delay):
    """Partial derivatives of <x, L> - 2 sqrt(t) sum sqrt(x) + sqrt(2 d t / ln K) sum x ln x agree at the minimum."""
    losses = (3.0, 9.0, 9.5, 40.0)
    weights = TsallisInf(delay=delay).weights(same_history(losses, 100.0), MODELS)
    rounds = 100.0 + delay
    derivatives = [
        loss - math.sqrt(rounds / weight) + math.sqrt(2.0 * delay * rounds / math.log(4.0)) * (math.log(weight) + 1.0)
        for loss, weight in zip(losses, weights.values(), strict=True)
    ]
    assert max(derivatives) - min(derivatives) <= 1e-6 * max(abs(one) for one in derivatives)


def test_the_worst_model_keeps_a_probability_that_can_be_drawn():
    decisions = TsallisInf().prepare(same_history((0.0, 1e6, 1e6, 1e6), 1e6), MODELS).decisions
    assert len(decisions) == 4
    assert min(one.served_propensity for one in decisions) > 1e-7


def test_feedbacks_are_counted_once_whether_one_model_is_scored_or_all():
    single, every = SelectionState(), SelectionState()
    for number in range(40):
        single = add_losses(single, {MODELS[number % 4]: 0.5}, {MODELS[number % 4]: 0.25})
        every = add_losses(every, dict.fromkeys(MODELS, 0.5), dict.fromkeys(MODELS, 1.0))
    assert feedbacks(single, MODELS) == feedbacks(every, MODELS) == 40.0
    improbable = add_losses(SelectionState(), {"a:1": 0.5}, {"a:1": 1e-6})
    assert feedbacks(improbable, MODELS) == 1.0, "one improbable choice does not stand for many"
