"""Logs whose truth is known: choices and columns made by a seed."""

from dataclasses import fields, replace

import numpy as np

from clipper_stream.evaluation.estimators.block_sums import BLOCKS
from clipper_stream.evaluation.estimators.propensity_matrices import Choices
from clipper_stream.evaluation.log.columns import DecisionColumns


def choices(logged, target, chosen, loss, predicted=None, *, context=None):
    """Decisions that asked exactly one model each, a row a decision."""
    n, models = target.shape
    weight, known = np.zeros((n, models)), np.zeros((n, models))
    weight[np.arange(n), chosen] = 1 / logged[np.arange(n), chosen]
    known[np.arange(n), chosen] = loss
    return Choices(
        weight=weight,
        loss=known,
        target=target,
        predicted=predicted,
        answer_loss=np.asarray(loss, float),
        block=np.random.default_rng(n).integers(0, BLOCKS, n),
        context=np.zeros(n, np.int32) if context is None else context,
    )


def some_choices(seed=0, n=400, models=3, *, same=False):
    """Choices of a policy that explores, and of another candidate (or of itself), with predictions near the truth."""
    rng = np.random.default_rng(seed)
    logged = 0.1 + (1 - 0.1 * models) * rng.dirichlet(np.ones(models), n)
    target = logged if same else rng.dirichlet(np.ones(models), n)
    chosen = (rng.random(n)[:, None] > np.cumsum(logged, axis=1)).sum(axis=1).clip(0, models - 1)
    truth = np.linspace(0.2, 0.6, models)
    loss = (rng.random(n) < truth[chosen]).astype(float)
    return choices(logged, target, chosen, loss, np.clip(truth + 0.1 * rng.standard_normal((n, models)), 0, 1))


def taken(some, rows):
    arrays = {field.name: getattr(some, field.name) for field in fields(some)}
    return replace(some, **{name: array[rows] for name, array in arrays.items() if array is not None})


def columns(models=("a:1", "b:1"), contexts=(None,), **given):
    """Decisions with what is given; each is a query of partition 0 with feedback by label, unless said otherwise."""
    n = len(next(iter(given.values())))
    empty = DecisionColumns.empty(models, n)
    given = {"offset": np.arange(n), "label": np.zeros(n), "answered": np.ones((n, len(models)))} | given
    arrays = {name: np.asarray(values).astype(getattr(empty, name).dtype) for name, values in given.items()}
    return replace(empty, contexts=tuple(contexts), **arrays)
