"""Logged decisions as matrices, which is all that an estimator looks at.

Rules of this file:
- n decisions with feedback, K columns that a candidate chooses among (models; or models and ensembles).
- A decision without feedback is no row: nothing is known about it. `censored_feedback` says what that costs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.estimators.block_sums import Blocks, blocks_of
from clipper_stream.evaluation.log.columns import Codes, DecisionColumns, Floats
from clipper_stream.evaluation.log.known_losses import known_losses

_ROUNDING = 1e-6
"""How far probabilities may miss a sum of 1: they are sums of logged float64, and often of float32 of a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """n decisions as matrices: weights, losses and the candidate's target probabilities.

    Attributes:
        weight: 1 / probability of having been scored where the loss is known, else 0; w in formulas, (n, K).
        loss: Loss where it is known, else 0; L, (n, K).
        target: Probability that the candidate serves this column alone, rows summing to 1; pi, (n, K).
        predicted: Predicted loss; q, (n, K). None where no estimator that is used predicts.
        answer_loss: Loss of the answer that was given; NaN where it is not known, (n,).
        block: Block of each decision, in [0, BLOCKS), (n,).
        context: Index into the contexts of the log, (n,).

    Source: Dudik, Langford and Li, "Doubly robust policy evaluation and learning", ICML 2011, section 2 (with an audit,
    more than one column of a row is known).
    """

    weight: Floats
    loss: Floats
    target: Floats
    predicted: Floats | None
    answer_loss: Floats
    block: Blocks
    context: Codes

    def __len__(self) -> int:
        return len(self.target)

    @property
    def ratio(self) -> Floats:
        """Importance ratio pi w: target probability over logged propensity, (n, K)."""
        return self.target * self.weight

    @property
    def importance(self) -> Floats:
        """Sum of `ratio` over the columns: what a decision counts for the candidate, 1 on average, (n,)."""
        return row_sums(self.target, self.weight)

    @property
    def prediction(self) -> Floats:
        if self.predicted is None:
            raise InvalidSetting("no predicted losses: add them by `outcome_model.with_predictions`")
        return self.predicted


def choices_of(columns: DecisionColumns, target: Floats) -> Choices:
    """Return the decisions with feedback as matrices."""
    if target.shape != columns.loss.shape:
        raise InvalidSetting(
            f"target has shape {target.shape}: give {columns.loss.shape}, a row a decision, a column a model"
        )
    if not (target >= 0.0).all() or (np.abs(row_sums(target, np.ones_like(target)) - 1.0) > _ROUNDING).any():
        raise InvalidSetting("target has a row that is no distribution: give probabilities >= 0 that sum to 1")
    rows = columns.with_feedback
    kept = None if rows.all() else np.flatnonzero(rows)
    known = known_losses(columns)
    return Choices(
        weight=_of_rows(known.weight, kept),
        loss=_of_rows(known.loss, kept),
        target=_of_rows(target, kept),
        predicted=None,
        answer_loss=columns.answer_loss if kept is None else columns.answer_loss[kept],
        block=blocks_of(columns) if kept is None else blocks_of(columns)[kept],
        context=columns.context if kept is None else columns.context[kept],
    )


def row_sums(left: Floats, right: Floats) -> Floats:
    """Sum of products over the columns, (n,): the one operation that all estimators are made of."""
    return np.asarray(np.einsum("ij,ij->i", left, right))


def _of_rows(matrix: Floats, kept: NDArray[np.intp] | None) -> Floats:
    if kept is None:
        return np.asfortranarray(matrix)
    found = np.empty((len(kept), matrix.shape[1]), order="F")
    for column in range(matrix.shape[1]):
        np.take(matrix[:, column], kept, out=found[:, column])
    return found
