"""Exp3 and Exp3-IX: ask one model, drawn by weight; learn from its loss alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from clipper_stream.selection.distribution import ActionDistribution, one_of, with_exploration
from clipper_stream.selection.parameters import bounded_field, discount_factor
from clipper_stream.selection.policies.exponential_weights import exponential_weights
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState, add_losses


@dataclass(frozen=True, slots=True, kw_only=True)
class Exp3(SelectionPolicy):
    """Exponential weights over importance-weighted losses, mixed with a uniform share.

    The paper's `s_i <- s_i exp(-eta L / p_i)` for the arm served is `weighted_loss_i += L / p_i` here, with the
    propensity that was logged: feedback may come hours later, when the weights are others. The weights are softmax
    of the sums, in log space, so no stream is long enough to underflow them. Models with less history than others
    are charged at par for what they missed: see `exponential_weights`.

    Attributes:
        eta: Learning rate, > 0. The default 0.1 tells a model with 2 % errors from one with 4 % in some hundred
            feedbacks. Clipper's C++ used 0.01: ten times steadier, and ten times slower to leave a broken model.
        exploration: Share of queries spread evenly, in [0, 1]. Each of K models is asked with probability of at
            least exploration / K, so a repaired model is found again, and replay can evaluate any policy.
        half_life: Feedbacks of one partition after which an observation weighs half, > 0; None: never forget.
        half_life_s: Seconds of the log after which an observation weighs half, > 0; None: time changes nothing.

    >>> from clipper_stream.selection.state import ModelTotals
    >>> state = SelectionState({"a:1": ModelTotals(50.0, 5.0, 50.0, 5.0), "b:1": ModelTotals(50.0, 40.0, 50.0, 40.0)})
    >>> {model: round(weight, 3) for model, weight in Exp3().weights(state, ["a:1", "b:1"]).items()}
    {'a:1': 0.971, 'b:1': 0.029}

    Source: Auer, Cesa-Bianchi, Freund and Schapire, "The nonstochastic multiarmed bandit problem", SIAM J. Comput.
    32, 2002 (gamma is `exploration`); Clipper, section 5.1.
    """

    name: ClassVar[str] = "exp3"
    eta: float = bounded_field(0.1, above=0.0)
    exploration: float = bounded_field(0.05, most=1.0)
    half_life: float | None = bounded_field(None, above=0.0)
    half_life_s: float | None = bounded_field(None, above=0.0)

    def prepare(self, state: SelectionState, candidates: Sequence[str]) -> ActionDistribution:
        weights = exponential_weights(self.eta, state, candidates)
        return one_of(weights, with_exploration(weights, self.exploration).values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Exp3IX(SelectionPolicy):
    """Exponential weights over losses divided by p + gamma instead of p, and no share of uniform exploration.

    A loss seen with probability p counts (L - par) / (p + gamma), par being what the model is charged for feedbacks
    that are not about it: see `exponential_weights`. So no single loss moves a sum by more than 1 / gamma, where in
    Exp3 one loss of a model with p = 0.0001 moves it by thousands, in either direction. The paper has no par, and damps
    the loss alone; with par that would lift the weight of a seldom asked model with every loss of it. On average a
    seldom asked model is charged less than its excess loss, p / (p + gamma) of it, so its share falls as 1 / (2 (L -
    L_best) n) after n feedbacks and not faster: no query is given away to chance alone. The sums remain sums:
    partitions add up.

    Attributes:
        eta: Learning rate, > 0. The paper's for T queries is sqrt(2 ln K / (K T)), 0.008 for 5 models and 10,000
            queries; the default 0.02 is that for 1,600. More is faster, and asks worse models more often, by way of
            gamma.
        gamma: What is added to each propensity, >= 0; None: eta / 2, as in the paper. More explores more. With less
            than that one answer of a seldom asked model can decide.
        half_life: Feedbacks of one partition after which an observation weighs half, > 0; None: never forget.
        half_life_s: Seconds of the log after which an observation weighs half, > 0; None: time changes nothing.

    >>> Exp3IX(gamma=0.25).observe(SelectionState(), {"a:1": 1.0}, {"a:1": 0.25}).of("a:1")
    ModelTotals(count=1.0, loss=1.0, weighted_count=2.0, weighted_loss=2.0, moments=())

    Source: Neu, "Explore no more: improved high-probability regret bounds for non-stochastic bandits", NIPS 2015,
    algorithm 1 (the division by p + gamma).
    """

    name: ClassVar[str] = "exp3_ix"
    eta: float = bounded_field(0.02, above=0.0)
    gamma: float | None = bounded_field(None)
    half_life: float | None = bounded_field(None, above=0.0)
    half_life_s: float | None = bounded_field(None, above=0.0)

    def prepare(self, state: SelectionState, candidates: Sequence[str]) -> ActionDistribution:
        weights = exponential_weights(self.eta, state, candidates)
        return one_of(weights, weights.values())

    def observe(
        self, state: SelectionState, losses: Mapping[str, float], propensities: Mapping[str, float]
    ) -> SelectionState:
        gamma = self.eta / 2.0 if self.gamma is None else self.gamma
        return add_losses(state, losses, propensities, discount_factor(self.half_life), damping=gamma)
