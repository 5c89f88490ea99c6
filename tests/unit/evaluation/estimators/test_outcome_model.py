import numpy as np
import pytest
from builders.estimators import choices, some_choices, taken

from clipper_stream.evaluation.estimators.blocks import folds_of
from clipper_stream.evaluation.estimators.contexts import Contexts
from clipper_stream.evaluation.estimators.outcome_model import PRIOR_DECISIONS, OutcomeSums


def contexts(n, names=("x", "y"), seed=0):
    return Contexts(names=names, code=np.random.default_rng(seed).integers(0, len(names), n).astype(np.int32))


def test_a_decision_is_predicted_without_its_own_loss():
    some, where = some_choices(1), contexts(400)
    before = OutcomeSums.of(some, where).outcome().predicted(some, where)
    other = taken(some, np.arange(400))
    fold = folds_of(some.block) == 2
    other.loss[fold] = 1 - other.loss[fold]
    after = OutcomeSums.of(other, where).outcome().predicted(other, where)
    assert np.array_equal(before.predicted[fold], after.predicted[fold])
    assert not np.array_equal(before.predicted[~fold], after.predicted[~fold])


def test_predictions_become_the_means_of_context_and_model():
    rng, n = np.random.default_rng(2), 40_000
    where, chosen = contexts(n), rng.integers(0, 2, n)
    truth = np.array([[0.1, 0.5], [0.9, 0.3]])
    loss = (rng.random(n) < truth[where.code, chosen]).astype(float)
    some = choices(np.full((n, 2), 0.5), np.full((n, 2), 0.5), chosen, loss)
    table = OutcomeSums.of(some, where).outcome().table
    assert np.abs(table[:, :2] - truth).max() < 4 * 0.5 / np.sqrt(n * 3 / 16), "four standard errors of such a mean"


def test_what_was_seen_little_is_drawn_towards_its_model_and_that_towards_all():
    some = choices(np.ones((4, 3)), np.full((4, 3), 1 / 3), [0, 0, 0, 1], [1.0, 1.0, 1.0, 0.0])
    where = Contexts(names=("x", "y"), code=np.array([0, 0, 0, 0], np.int32))
    found = OutcomeSums.of(some, where)
    one = OutcomeSums(contexts=found.contexts, losses=found.losses * 0, counts=found.counts * 0).merged(found)
    outside = [fold for fold in range(4) if fold not in set(folds_of(some.block).tolist())]
    losses, counts = 3.0, 4.0
    overall = (losses + PRIOR_DECISIONS / 2) / (counts + PRIOR_DECISIONS)
    first = (3.0 + PRIOR_DECISIONS * overall) / (3.0 + PRIOR_DECISIONS)
    table = one.outcome().table[outside[0]]
    assert table[2, 0] == pytest.approx(first), "a context that was never seen"
    assert table[1, 0] == pytest.approx(first), "a context without decisions"
    assert table[0, 0] == pytest.approx((3.0 + PRIOR_DECISIONS * first) / (3.0 + PRIOR_DECISIONS))
    assert table[0, 2] == pytest.approx(overall), "a model that was never asked"


def test_chunks_with_other_contexts_are_added_by_name():
    some, where = some_choices(3), contexts(400, ("x", "y", None))
    whole = OutcomeSums.of(some, where)
    renamed = Contexts(names=(None, "z", "x", "y"), code=np.array([2, 3, 0], np.int32)[where.code[200:]])
    first = OutcomeSums.of(taken(some, slice(0, 200)), Contexts(names=where.names, code=where.code[:200]))
    merged = OutcomeSums.empty(3).merged(first).merged(OutcomeSums.of(taken(some, slice(200, 400)), renamed))
    assert set(merged.contexts) == {"x", "y", None, "z"}
    expected = whole.outcome().predicted(some, where).predicted
    assert np.allclose(merged.outcome().predicted(some, where).predicted, expected, atol=1e-12)


def test_a_context_that_nobody_has_seen_has_the_means_of_the_models():
    some, where = some_choices(3), contexts(400)
    outcome = OutcomeSums.of(some, where).outcome()
    strange = Contexts(names=("new",), code=np.zeros(400, np.int32))
    assert np.array_equal(outcome.predicted(some, strange).predicted, outcome.table[folds_of(some.block), -1])
