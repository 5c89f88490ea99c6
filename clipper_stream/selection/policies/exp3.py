"""Exp3: ask one model, drawn by weight; learn from its loss alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from clipper_stream.selection.distribution import ActionDistribution, one_of, with_exploration
from clipper_stream.selection.parameters import bounded_field
from clipper_stream.selection.policies.exponential_weights import exponential_weights
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState


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
        half_life, half_life_s: As in `SelectionPolicy`.

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
