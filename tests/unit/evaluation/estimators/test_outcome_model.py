from dataclasses import fields, replace

import numpy as np
import pytest
from builders.estimators import choices, some_choices, taken

from clipper_stream.evaluation.estimators.block_sums import folds_of
from clipper_stream.evaluation.estimators.outcome_model import PRIOR_DECISIONS, OutcomeSums, with_predictions
from clipper_stream.evaluation.estimators.support import SupportSums


def in_contexts(some, count=2):
    return replace(some, context=np.random.default_rng(0).integers(0, count, len(some)).astype(np.int32))


def test_a_decision_is_predicted_without_its_own_loss():
    some = in_contexts(some_choices(1))
    fold, other = folds_of(some.block) == 2, taken(some, np.arange(400))
    other.loss[fold] = 1 - other.loss[fold]
    before, after = (with_predictions(some, OutcomeSums.of(each, 2).table()).predicted for each in (some, other))
    assert np.array_equal(before[fold], after[fold])
    assert not np.array_equal(before[~fold], after[~fold])


def test_predictions_become_the_means_of_context_and_model():
    rng, n = np.random.default_rng(2), 40_000
    context, chosen = rng.integers(0, 2, n).astype(np.int32), rng.integers(0, 2, n)
    truth = np.array([[0.1, 0.5], [0.9, 0.3]])
    loss = (rng.random(n) < truth[context, chosen]).astype(float)
    some = choices(np.full((n, 2), 0.5), np.full((n, 2), 0.5), chosen, loss, context=context)
    table = OutcomeSums.of(some, 2).table()
    assert np.abs(table - truth).max() < 4 * 0.5 / np.sqrt(n * 3 / 16), "four standard errors of such a mean"


def test_what_was_seen_little_is_drawn_towards_its_model_and_that_towards_all():
    some = choices(np.ones((4, 3)), np.full((4, 3), 1 / 3), [0, 0, 0, 1], [1.0, 1.0, 1.0, 0.0])
    outside = [fold for fold in range(4) if fold not in set(folds_of(some.block).tolist())]
    losses, counts = 3.0, 4.0
    overall = (losses + PRIOR_DECISIONS / 2) / (counts + PRIOR_DECISIONS)
    first = (3.0 + PRIOR_DECISIONS * overall) / (3.0 + PRIOR_DECISIONS)
    table = OutcomeSums.of(some, 2).table()[outside[0]]
    assert table[1, 0] == pytest.approx(first), "a context without decisions"
    assert table[0, 0] == pytest.approx((3.0 + PRIOR_DECISIONS * first) / (3.0 + PRIOR_DECISIONS))
    assert table[0, 2] == pytest.approx(overall), "a model that was never asked"


@pytest.mark.parametrize("sums", [OutcomeSums, SupportSums])
def test_sums_of_chunks_are_those_of_the_whole(sums):
    some = in_contexts(some_choices(3), 3)
    first, second = (sums.of(taken(some, chunk), 3) for chunk in (slice(0, 150), slice(150, 400)))
    merged, whole = first.merged(second), sums.of(some, 3)
    for field in fields(sums):
        assert getattr(merged, field.name) == pytest.approx(getattr(whole, field.name)), field.name
