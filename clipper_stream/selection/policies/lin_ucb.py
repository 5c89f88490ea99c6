"""LinUCB: ask the model that may have the least loss on queries like this one.

Losses are linear in a query's features, a ridge regression for each model, from sums of products:

    theta_m  = (A_m + ridge I)^-1 (b_m + ridge theta_0)
    loss_m   = theta_m x,    width_m = sqrt(x (A_m + ridge I)^-1 x)

with x = (1, features), A_m the sum of x x^T and b_m the sum of loss x. theta_0 = (mean, 0, ..., 0) is what is believed
of a model that nothing is known of: the loss that the others have on average, whatever the features. So a model
that joins is neither the best nor the worst.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from clipper_stream.selection.contextual import ContextualChoice
from clipper_stream.selection.distribution import ActionDistribution, most_to
from clipper_stream.selection.parameters import bounded_field
from clipper_stream.selection.policies.epsilon_greedy import least_mean_loss
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import ModelTotals, SelectionState, add_losses, average_loss, discount_factor
from clipper_stream.selection.sufficient_statistics import Features, normal_equations, width_of

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinUcb(SelectionPolicy):
    """For each model a linear regression of its loss on the query's features; the least lower bound is asked.

    The bound is loss - alpha width: a model that was seldom asked about such queries has a large width, and is asked.
    The paper maximises payoffs by upper bounds; losses turn that around. The paper's choice has a probability of 0 or
    1; here a uniform share is mixed in, so that every propensity is known and replay can evaluate any policy.

    A query without features is decided by the models' mean losses, as `epsilon_greedy` decides, and teaches only these.
    Features should be about as large as 1: the ridge weighs all alike.

    Attributes:
        alpha: How many widths the bound lies below the loss, >= 0. A loss in [0, 1] has a standard deviation of 0.5 at
            most, so the default 1 is a bound of two standard errors or more.
        ridge: Feedbacks that the belief without data is worth, > 0.
        exploration: Share of queries spread evenly, in [0, 1]; each of K models is asked with exploration / K at least.
        half_life, half_life_s: As in `SelectionPolicy`.

    >>> policy, state, models = LinUcb(exploration=0.1), SelectionState(), ["a:1", "b:1"]
    >>> for feature in (0.0, 1.0) * 20:  # a:1 is right about small ones, b:1 about large ones
    ...     losses = {"a:1": feature, "b:1": 1.0 - feature}
    ...     state = policy.observe_for(state, losses, dict.fromkeys(models, 1.0), [feature])
    >>> [policy.by_features(state, models).given([feature]).weights for feature in (0.1, 0.9)]
    [{'a:1': 0.9500000000000001, 'b:1': 0.05}, {'a:1': 0.05, 'b:1': 0.9500000000000001}]

    Source: Li, Chu, Langford and Schapire, "A contextual-bandit approach to personalized news article recommendation",
    WWW 2010, algorithm 1 (disjoint models; A and b are the moments, with the ridge as their D^T D prior).
    """

    name: ClassVar[str] = "lin_ucb"
    alpha: float = bounded_field(1.0)
    ridge: float = bounded_field(1.0, above=0.0)
    exploration: float = bounded_field(0.05, most=1.0)
    half_life: float | None = bounded_field(None, above=0.0)
    half_life_s: float | None = bounded_field(None, above=0.0)

    def prepare(self, state: SelectionState, candidates: Sequence[str]) -> ActionDistribution:
        return least_mean_loss(state, candidates, self.exploration)

    def by_features(self, state: SelectionState, candidates: Sequence[str]) -> ContextualChoice[ActionDistribution]:
        totals = [state.of(model) for model in candidates]
        losses = linear_losses(totals, self.ridge, average_loss(state, candidates))
        return ContextualChoice(
            otherwise=self.prepare(state, candidates),
            choices=tuple(most_to(model, candidates, self.exploration) for model in candidates),
            place=partial(losses.least_bound, self.alpha),
        )

    def observe_for(
        self,
        state: SelectionState,
        losses: Mapping[str, float],
        propensities: Mapping[str, float],
        features: Features,
    ) -> SelectionState:
        return add_losses(state, losses, propensities, discount_factor(self.half_life), features=features)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearLosses:
    """Regressions of the losses of K models on x = (1, features), of length d.

    Attributes:
        theta: Coefficients, (K, d).
        roots: R with R R^T = (A + ridge I)^-1, (K, d, d).
        ridge: Of each place, > 0.

    >>> from clipper_stream.selection.sufficient_statistics import moments_of
    >>> losses = linear_losses([ModelTotals(moments=moments_of([1.0], 1.0)), ModelTotals()], ridge=1.0, mean=0.5)
    >>> [values.round(3).tolist() for values in losses.at([1.0])]
    [[0.833, 0.5], [0.816, 1.414]]

    Source: Hoerl and Kennard, "Ridge regression", Technometrics 12, 1970; Rasmussen and Williams, "Gaussian Processes
    for Machine Learning", 2006, section 2.1.1 (theta_m and width_m are mean and deviation of the posterior).
    """

    theta: Floats
    roots: Floats
    ridge: float

    def at(self, features: Features) -> tuple[Floats, Floats]:
        """Expected loss of each model, and its standard deviation, both of shape (K,).

        There is at least one feature; a place that no feedback had is all of the ridge's, its coefficient is 0.
        """
        width = self.theta.shape[1]
        x = np.zeros(width)
        known = features[: width - 1]
        x[0], x[1 : 1 + len(known)] = 1.0, known
        beyond = sum([value * value for value in features[width - 1 :]]) / self.ridge
        projected = (x[:, None] * self.roots).sum(axis=1)
        return (self.theta * x).sum(axis=1), np.sqrt((projected * projected).sum(axis=1) + beyond)

    def least_bound(self, alpha: float, features: Features) -> int:
        """Index of the model whose loss has the least lower bound, `alpha` deviations below; the first of several."""
        loss, width = self.at(features)
        return int((loss - alpha * width).argmin())


def linear_losses(totals: Sequence[ModelTotals], ridge: float, mean: float) -> LinearLosses:
    """Fit a regression for each of the totals.

    Coefficients are drawn to those of a constant loss `mean`, in [0, 1], as by `ridge` feedbacks, > 0.
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
