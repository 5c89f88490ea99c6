"""Exp3-IX: exponential weights that explore because they forgive what they seldom see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from clipper_stream.selection.distribution import ActionDistribution, one_of
from clipper_stream.selection.parameters import check_half_life, check_number, discount_factor
from clipper_stream.selection.policies.exponential_weights import exponential_weights
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState, add_losses


@dataclass(frozen=True, slots=True, kw_only=True)
class Exp3IX(SelectionPolicy):
    """Exponential weights over losses divided by p + gamma instead of p, and no share of uniform exploration.

    A loss seen with probability p counts L / (p + gamma), so a seldom asked model is charged too little on average:
    pL / (p + gamma). It gains weight until it is asked about gamma x L_best / (L - L_best) of the time. No query is
    given away to chance alone, and no single loss counts more than 1 / gamma, which is what bounds the regret with high
    probability where Exp3 bounds it on average. Counts are divided by p alone, so a model that joins or pauses is
    treated as in Exp3: see `exponential_weights`. The sums remain sums: partitions add up.

    Attributes:
        eta: Learning rate, > 0. The paper's for T queries is sqrt(2 ln K / (K T)), 0.008 for 5 models and 10,000
            queries; the default 0.02 is that for 1,600. More is faster, and asks worse models more often, by way of
            gamma.
        gamma: What is added to each propensity, >= 0; None: eta / 2, as in the paper. More explores more. With less
            than that a model that is seldom asked can be carried to the top by one good answer.
        half_life: Feedbacks of one partition after which an observation weighs half, > 0; None: never forget.

    >>> Exp3IX(gamma=0.25).observe(SelectionState(), {"a:1": 1.0}, {"a:1": 0.25}).of("a:1").weighted_loss
    2.0

    Source: Neu, "Explore no more: improved high-probability regret bounds for non-stochastic bandits", NIPS 2015,
    algorithm 1.
    """

    name: ClassVar[str] = "exp3_ix"
    eta: float = 0.02
    gamma: float | None = None
    half_life: float | None = None

    def __post_init__(self) -> None:
        check_number("eta", self.eta, above=0.0)
        if self.gamma is not None:
            check_number("gamma", self.gamma)
        check_half_life(self.half_life)

    def prepare(self, state: SelectionState, candidates: Sequence[str]) -> ActionDistribution:
        weights = exponential_weights(self.eta, state, candidates)
        return one_of(weights, weights.values())

    def observe(
        self, state: SelectionState, losses: Mapping[str, float], propensities: Mapping[str, float]
    ) -> SelectionState:
        gamma = self.eta / 2.0 if self.gamma is None else self.gamma
        return add_losses(state, losses, propensities, discount_factor(self.half_life), damping=gamma)
