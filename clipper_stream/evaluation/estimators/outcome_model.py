"""Predicted losses: a mean for each context and model, drawn towards the model's own where little was seen.

Rules of this file:
- What is predicted for a decision was learned from other folds, so that a correction by its loss stays unbiased.
- Losses count equally, whatever their propensity: the mean of a cell needs no weights, and has least variance so.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from clipper_stream.evaluation.estimators.block_sums import FOLDS, AdditiveSums, folds_of, totals
from clipper_stream.evaluation.estimators.propensity_matrices import Choices
from clipper_stream.evaluation.log.columns import Floats

PRIOR_DECISIONS = 10.0
"""So many observations of a cell weigh as much as what is known without them."""
_NEITHER = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeSums(AdditiveSums):
    """Known losses by fold, context and column.

    Attributes:
        losses: Sum of known losses, (FOLDS, C, K).
        counts: How many, (FOLDS, C, K).

    Source: Chernozhukov et al., "Double/debiased machine learning for treatment and structural parameters",
    Econometrics J. 21, 2018, section 3 (cross-fitting).
    """

    losses: Floats
    counts: Floats

    @classmethod
    def of(cls, choices: Choices, contexts: int) -> Self:
        """Return the sums of known losses of n decisions; the choices need no predictions yet."""
        shape = (FOLDS, contexts, choices.target.shape[1])
        cell = folds_of(choices.block) * contexts + choices.context
        losses, counts = (
            totals(cell, FOLDS * contexts, values).reshape(shape) for values in (choices.loss, choices.weight > 0.0)
        )
        return cls(losses=losses, counts=counts)

    def table(self) -> Floats:
        """Return the predicted loss of each fold, by what all other folds know, in [0, 1], (FOLDS, C, K).

        Source: Efron and Morris, "Data analysis using Stein's estimator and its generalizations", J. Am. Stat. Assoc.
        70, 1975 (drawing a cell's mean towards that of its column).
        """
        losses = self.losses.sum(axis=0) - self.losses
        counts = self.counts.sum(axis=0) - self.counts
        all_losses, all_counts = losses.sum(axis=(1, 2), keepdims=True), counts.sum(axis=(1, 2), keepdims=True)
        overall = _drawn(all_losses, all_counts, np.float64(_NEITHER))
        of_column = _drawn(losses.sum(axis=1, keepdims=True), counts.sum(axis=1, keepdims=True), overall)
        return _drawn(losses, counts, of_column)


def with_predictions(choices: Choices, table: Floats) -> Choices:
    """Return the choices with the losses that a table predicts for them."""
    return replace(choices, predicted=np.asfortranarray(table[folds_of(choices.block), choices.context]))


def _drawn(losses: Floats, counts: Floats, towards: Floats | np.float64) -> Floats:
    """Means of losses, as if `PRIOR_DECISIONS` more had been seen with the mean that they are drawn towards."""
    return np.asarray((losses + PRIOR_DECISIONS * towards) / (counts + PRIOR_DECISIONS))
