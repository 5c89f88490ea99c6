"""Predicted losses: a mean for each context and model, drawn towards the model's own where little was seen.

Rules of this file:
- What is predicted for a decision was learned from other folds, so that a correction by its loss stays unbiased.
- Losses count equally, whatever their propensity: the mean of a cell needs no weights, and has least variance so.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from clipper_stream.evaluation.estimators.blocks import FOLDS, folds_of
from clipper_stream.evaluation.estimators.contexts import Contexts, Names, together, totals
from clipper_stream.evaluation.estimators.propensity_matrices import Choices
from clipper_stream.evaluation.log.columns import Floats

PRIOR_DECISIONS = 10.0
"""So many observations of a cell weigh as much as what is known without them."""
_NEITHER = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeSums:
    """Known losses by fold, context and column; sums of chunks are added.

    Attributes:
        contexts: Names of the tables' rows.
        losses: Sum of known losses, (FOLDS, C, K).
        counts: How many, (FOLDS, C, K).

    >>> OutcomeSums.empty(2).losses.shape
    (4, 0, 2)

    Source: Chernozhukov et al., "Double/debiased machine learning for treatment and structural parameters",
    Econometrics J. 21, 2018, section 3 (cross-fitting).
    """

    contexts: Names
    losses: Floats
    counts: Floats

    @classmethod
    def empty(cls, width: int) -> Self:
        """Return the sums of no decision, of K columns."""
        return cls(contexts=(), losses=np.zeros((FOLDS, 0, width)), counts=np.zeros((FOLDS, 0, width)))

    @classmethod
    def of(cls, choices: Choices, contexts: Contexts) -> Self:
        """Return the sums of known losses of n decisions; the choices need no predictions yet."""
        size = len(contexts.names)
        shape = (FOLDS, size, choices.target.shape[1])
        cell = folds_of(choices.block) * size + contexts.code
        losses = totals(cell, FOLDS * size, choices.loss).reshape(shape)
        counts = totals(cell, FOLDS * size, choices.weight > 0.0).reshape(shape)
        return cls(contexts=contexts.names, losses=losses, counts=counts)

    def merged(self, other: Self) -> Self:
        """The sums of both, whose decisions are different ones."""
        names, losses = together([(self.contexts, self.losses), (other.contexts, other.losses)])
        _, counts = together([(self.contexts, self.counts), (other.contexts, other.counts)])
        return type(self)(contexts=names, losses=losses, counts=counts)

    def outcome(self) -> "OutcomeModel":
        """Predictions for each fold, by what all other folds know."""
        losses = self.losses.sum(axis=0) - self.losses
        counts = self.counts.sum(axis=0) - self.counts
        all_losses, all_counts = losses.sum(axis=(1, 2), keepdims=True), counts.sum(axis=(1, 2), keepdims=True)
        overall = _drawn(all_losses, all_counts, np.float64(_NEITHER))
        of_column = _drawn(losses.sum(axis=1, keepdims=True), counts.sum(axis=1, keepdims=True), overall)
        table = np.concatenate([_drawn(losses, counts, of_column), of_column], axis=1)
        return OutcomeModel(contexts=self.contexts, table=table)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeModel:
    """Predicted losses by fold, context and model.

    Attributes:
        contexts: Names of the table's rows but the last, which is for contexts that were never seen.
        table: Predicted loss by fold, context and column, in [0, 1], (FOLDS, C + 1, K).

    >>> OutcomeSums.empty(2).outcome().table[0].tolist()
    [[0.5, 0.5]]

    Source: Efron and Morris, "Data analysis using Stein's estimator and its generalizations", J. Am. Stat. Assoc. 70,
    1975 (drawing a cell's mean towards that of its column).
    """

    contexts: Names
    table: Floats

    def predicted(self, choices: Choices, contexts: Contexts) -> Choices:
        """Return the choices with predicted losses."""
        found = self.table[folds_of(choices.block), contexts.among(self.contexts)]
        return replace(choices, predicted=np.asfortranarray(found))


def _drawn(losses: Floats, counts: Floats, towards: Floats | np.float64) -> Floats:
    """Means of losses, as if `PRIOR_DECISIONS` more had been seen with the mean that they are drawn towards."""
    return np.asarray((losses + PRIOR_DECISIONS * towards) / (counts + PRIOR_DECISIONS))
