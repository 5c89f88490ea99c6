"""LinUCB: ask the model that may have the least loss on queries like this one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from clipper_stream.selection.contextual import ContextualChoice
from clipper_stream.selection.discount import check_half_life, discount_factor
from clipper_stream.selection.distribution import ActionDistribution, one_of
from clipper_stream.selection.parameter_checks import check_number
from clipper_stream.selection.policies.epsilon_greedy import mean_losses
from clipper_stream.selection.policies.linear_losses import LinearLosses, linear_losses
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState, add_losses
from clipper_stream.selection.sufficient_statistics import Features


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
        half_life: Feedbacks of one partition after which an observation weighs half, > 0; None: never forget.

    >>> policy, state, models = LinUcb(exploration=0.1), SelectionState(), ["a:1", "b:1"]
    >>> for feature in (0.0, 1.0) * 20:  # a:1 is right about small ones, b:1 about large ones
    ...     losses = {"a:1": feature, "b:1": 1.0 - feature}
    ...     state = policy.observe_for(state, losses, dict.fromkeys(models, 1.0), [feature])
    >>> [policy.prepare_for(state, models, [feature]).weights for feature in (0.1, 0.9)]
    [{'a:1': 0.9500000000000001, 'b:1': 0.05}, {'a:1': 0.05, 'b:1': 0.9500000000000001}]

    Source: Li, Chu, Langford and Schapire, "A contextual-bandit approach to personalized news article recommendation",
    WWW 2010, algorithm 1 (disjoint models; A and b are the moments, with the ridge as their D^T D prior).
    """

    name: ClassVar[str] = "lin_ucb"
    alpha: float = 1.0
    ridge: float = 1.0
    exploration: float = 0.05
    half_life: float | None = None

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)
        check_number("ridge", self.ridge, above=0.0)
        check_number("exploration", self.exploration, most=1.0)
        check_half_life(self.half_life)

    def prepare(self, state: SelectionState, candidates: Sequence[str]) -> ActionDistribution:
        means = mean_losses(state, candidates)
        return self._mostly(min(candidates, key=means.__getitem__), candidates)

    def by_features(self, state: SelectionState, candidates: Sequence[str]) -> ContextualChoice[ActionDistribution]:
        losses = linear_losses([state.of(model) for model in candidates], self.ridge, _mean(state, candidates))
        return ContextualChoice(
            otherwise=self.prepare(state, candidates),
            choices=tuple(self._mostly(model, candidates) for model in candidates),
            place=_LeastBound(losses, self.alpha),
        )

    def observe(
        self, state: SelectionState, losses: Mapping[str, float], propensities: Mapping[str, float]
    ) -> SelectionState:
        return add_losses(state, losses, propensities, discount_factor(self.half_life))

    def observe_for(
        self,
        state: SelectionState,
        losses: Mapping[str, float],
        propensities: Mapping[str, float],
        features: Features,
    ) -> SelectionState:
        return add_losses(state, losses, propensities, discount_factor(self.half_life), features=features)

    def _mostly(self, greedy: str, candidates: Sequence[str]) -> ActionDistribution:
        shares = dict.fromkeys(candidates, self.exploration / len(candidates))
        shares[greedy] += 1.0 - self.exploration
        return one_of(shares, shares.values())


@dataclass(frozen=True, slots=True)
class _LeastBound:
    """Whose loss, in candidate order, has the least lower bound; the first of several."""

    losses: LinearLosses
    alpha: float

    def __call__(self, features: Features) -> int:
        loss, width = self.losses.at(features)
        return int((loss - self.alpha * width).argmin())


def _mean(state: SelectionState, candidates: Sequence[str]) -> float:
    """Mean over the candidates that have been scored of their mean losses, 0 when there are none."""
    known = [totals.loss / totals.count for totals in map(state.of, candidates) if totals.count > 0.0]
    return sum(known) / len(known) if known else 0.0
