"""Losses that are linear in a query's features, a ridge regression for each model, from moments.

    theta_m  = (A_m + ridge I)^-1 (b_m + ridge theta_0)
    loss_m   = theta_m x,    width_m = sqrt(x (A_m + ridge I)^-1 x)

with x = (1, features), A_m the sum of x x^T and b_m the sum of loss x. theta_0 = (mean, 0, ..., 0) is what is believed
of a model that nothing is known of: the loss that the others have on average, whatever the features. So a model
that joins is neither the best nor the worst.

Source: Hoerl and Kennard, "Ridge regression", Technometrics 12, 1970; Rasmussen and Williams, "Gaussian Processes for
Machine Learning", 2006, section 2.1.1 (theta_m and width_m are mean and standard deviation of the posterior).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipper_stream.selection.state import ModelTotals
from clipper_stream.selection.sufficient_statistics import Features, normal_equations, width_of

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearLosses:
    """What is known of K models at features; x has d places, those of the features after the first.

    Attributes:
        theta: Coefficients, (K, d).
        roots: R with R R^T = (A + ridge I)^-1, (K, d, d).
        ridge: Of each place, > 0.

    >>> from clipper_stream.selection.sufficient_statistics import moments_of
    >>> losses = linear_losses([ModelTotals(moments=moments_of([1.0], 1.0)), ModelTotals()], ridge=1.0, mean=0.5)
    >>> [values.round(3).tolist() for values in losses.at([1.0])]
    [[0.833, 0.5], [0.816, 1.414]]

    Source: as the module.
    """

    theta: Floats
    roots: Floats
    ridge: float

    def at(self, features: Features) -> tuple[Floats, Floats]:
        """Loss that is expected of each model, and how uncertain that is, both (K,).

        Args:
            features: At least one. Places that no feedback had are all of the ridge's: their coefficient is 0.
        """
        width = self.theta.shape[1]
        x = np.zeros(width)
        known = features[: width - 1]
        x[0], x[1 : 1 + len(known)] = 1.0, known
        beyond = sum([value * value for value in features[width - 1 :]]) / self.ridge
        projected = (x[:, None] * self.roots).sum(axis=1)
        return (self.theta * x).sum(axis=1), np.sqrt((projected * projected).sum(axis=1) + beyond)


def linear_losses(totals: Sequence[ModelTotals], ridge: float, mean: float) -> LinearLosses:
    """The regressions of models.

    Args:
        totals: Of each model.
        ridge: How strongly coefficients are drawn to what is believed without data, in feedbacks, > 0.
        mean: The loss that is believed of a model without data, in [0, 1].
    """
    width = max(1, *(width_of(known.moments) for known in totals))
    pairs = [normal_equations(known.moments, width) for known in totals]
    matrices, vectors = np.stack([matrix for matrix, _ in pairs]), np.stack([vector for _, vector in pairs])
    vectors[:, 0] += ridge * mean
    values, axes = np.linalg.eigh(matrices)
    # no eigenvalue of a sum of x x^T is negative, but for rounding, or in a state that somebody restored
    inverse = 1.0 / (np.maximum(values, 0.0) + ridge)
    along = (axes * vectors[:, :, None]).sum(axis=1) * inverse
    theta = (axes * along[:, None, :]).sum(axis=2)
    return LinearLosses(theta=theta, roots=axes * np.sqrt(inverse)[:, None, :], ridge=ridge)
