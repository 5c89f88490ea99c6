"""Exp4: ask every model, combine by weight; learn from every output."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from clipper_stream.selection.distribution import ActionDistribution, all_of
from clipper_stream.selection.parameters import check_half_life, check_number
from clipper_stream.selection.policies.exponential_weights import exponential_weights
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState


@dataclass(frozen=True, slots=True, kw_only=True)
class Exp4(SelectionPolicy):
    """Exponential weights over the losses of all models: Hedge, under the name it has in Clipper.

    The original updates `s_i <- s_i exp(-eta L_i / p_i)` with p_i the model's share of the weights. That division
    makes up for losses that were not observed because the model was not asked; here every model is asked, with
    probability 1, and every loss is observed. Dividing by the share would punish a light model for the same mistake
    many times harder than a heavy one, and the lighter it gets the harder: it could hardly come back. So the update
    is `s_i <- s_i exp(-eta L_i)`. Losses learned under another policy count with the propensity logged then.

    Attributes:
        eta: Learning rate, > 0. For losses in [0, 1] and a memory of T feedbacks the regret bound is least at
            sqrt(8 ln K / T); the default 0.3 is that for K = 5 models and T = 140 feedbacks, a half-life of 100.
        half_life: Feedbacks of one partition after which an observation weighs half, > 0; None: never forget.

    >>> from clipper_stream.selection.state import ModelTotals
    >>> state = SelectionState({"a:1": ModelTotals(10.0, 1.0, 10.0, 1.0), "b:1": ModelTotals(10.0, 6.0, 10.0, 6.0)})
    >>> {model: round(weight, 3) for model, weight in Exp4().weights(state, ["a:1", "b:1"]).items()}
    {'a:1': 0.818, 'b:1': 0.182}

    Source: Freund and Schapire, "A decision-theoretic generalization of on-line learning", JCSS 55, 1997 (Hedge,
    their beta is exp(-eta)); Cesa-Bianchi and Lugosi, "Prediction, Learning, and Games", 2006, theorem 2.2; Clipper,
    section 5.2.
    """

    name: ClassVar[str] = "exp4"
    eta: float = 0.3
    half_life: float | None = None

    def __post_init__(self) -> None:
        check_number("eta", self.eta, above=0.0)
        check_half_life(self.half_life)

    def prepare(self, state: SelectionState, candidates: Sequence[str]) -> ActionDistribution:
        return all_of(exponential_weights(self.eta, state, candidates))
