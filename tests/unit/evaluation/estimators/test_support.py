from dataclasses import replace

import numpy as np
import pytest
from builders.estimators import choices, columns, some_choices, taken

from clipper_stream.evaluation.estimators.support import FirstAsked, SupportSums
from clipper_stream.evaluation.log.configuration import Configuration

NAMES = ["a:1", "b:1", "c:1"]


def warnings(found, contexts=(None,)):
    return found.warnings(NAMES[: found.target.shape[1]], contexts)


def support(some):
    return SupportSums.of(some, 1)


def one_of(n, propensity, target):
    """What is known of a log of two models, of which the first is chosen with a probability."""
    chosen = (np.random.default_rng(0).random(n) > propensity).astype(int)
    logged = np.tile([propensity, 1 - propensity], (n, 1))
    return support(choices(logged, np.tile(target, (n, 1)), chosen, np.zeros(n)))


def test_a_candidate_that_does_what_was_logged_has_every_decision_and_no_warning():
    found = support(some_choices(1, same=True))
    assert (found.carrying, found.mean_importance) == pytest.approx((400, 1))
    assert found.unsupported_ratio == 0
    assert warnings(found) == ()


def test_few_decisions_that_count_are_warned_of_with_their_number():
    found = one_of(1_000, 0.02, [1.0, 0.0])
    assert 10 < found.carrying < 50
    (warning,) = warnings(found)
    assert f"only {found.carrying:,.0f} of 1,000 decisions" in warning
    assert "audit_ratio" in warning


def test_seldom_asked_models_that_matter_are_warned_of_though_many_decisions_count():
    found = one_of(1_000, 0.02, [0.3, 0.7])
    assert found.carrying < 30
    assert warnings(found)


def test_a_model_that_was_never_asked_in_a_context_is_named():
    n = 1_000
    context = (np.arange(n) % 2).astype(np.int32)
    chosen = np.where(context == 0, np.arange(n) // 2 % 2, 0)
    logged = np.where(context[:, None] == 0, [0.5, 0.5], [1.0, 0.0])
    some = choices(logged, np.tile([0.8, 0.2], (n, 1)), chosen, np.zeros(n), context=context)
    found = SupportSums.of(some, 2)
    assert found.unsupported_ratio == pytest.approx(0.1)
    assert "never scored in their context, most of all b:1 in context 'y'" in warnings(found, ("x", "y"))[0]


def test_propensities_that_are_not_true_are_noticed():
    some = some_choices(1, n=5_000)
    assert warnings(support(some)) == ()
    found = support(replace(some, weight=some.weight * 0.8))
    assert found.mean_importance == pytest.approx(0.8, abs=0.05)
    assert warnings(found)[0].startswith(f"decisions count {found.mean_importance:.3f} on average")


def test_without_a_decision_nothing_is_supported():
    found = support(taken(some_choices(1), slice(0, 0)))
    assert (found.carrying, found.unsupported_ratio) == (0.0, 1.0)
    assert "no decision says anything about it" in warnings(found)[0]


def test_a_decision_counts_once_all_that_the_candidate_asks_was_asked_under_its_revision():
    """Of two models: one that is there from the start with certainty, one that comes late and by chance."""
    late = [0.0, 0.0, 0.2, 0.0, 0.2, 0.0, 1.0, 1.0]
    some = columns(
        propensity=[[1.0, one] for one in late], at_ms=[1, 2, 3, 3, 4, 5, 6, 7], revision=[1, 1, 1, 1, 1, 2, 2, 2]
    )
    for target, counted in (
        ([1.0, 0.0], [1, 1, 1, 1, 1, 1, 1, 1]),
        ([0.995, 0.005], [1, 1, 1, 1, 1, 1, 1, 1]),
        ([0.5, 0.5], [0, 0, 0, 0, 1, 0, 1, 1]),
    ):
        first, parts = FirstAsked(), [some.take(slice(0, 4)), some.take(slice(4, 8))]
        found = np.concatenate([first.supports(part, np.tile(target, (4, 1))) for part in parts])
        assert found.tolist() == [bool(one) for one in counted], target


def test_a_canary_that_is_stepped_up_and_promoted_goes_on_counting_until_it_is_retired():
    configs = {
        1: Configuration(models=("a:1",), asked=("a:1",)),
        2: Configuration(models=("a:1",), asked=("a:1",), trials={"b:1": (0.0, 0.1)}),
        3: Configuration(models=("a:1", "b:1"), asked=("a:1", "b:1")),
        4: Configuration(models=("a:1", "b:1"), asked=("a:1",)),
        5: Configuration(models=("a:1", "b:1"), asked=("a:1", "b:1")),
    }
    revision, asked = [1, 2, 2, 2, 3, 4, 5, 5, 5], [0.0, 0.1, 0.0, 0.1, 0.0, 0.0, 0.0, 0.5, 0.0]
    some = columns(propensity=[[1.0, one] for one in asked], at_ms=range(9), revision=revision)
    found = FirstAsked().supports(replace(some, configs=configs), np.tile([0.0, 1.0], (9, 1)))
    assert np.flatnonzero(found).tolist() == [2, 3, 4, 8]
