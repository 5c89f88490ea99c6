"""Exp4: ask every model, combine by weight; learn from every output. And the rule that Clipper had, for comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from clipper_stream.selection.distribution import ActionDistribution, all_of
from clipper_stream.selection.parameters import bounded_field
from clipper_stream.selection.policies.exponential_weights import exponential_weights
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState, add_losses, discount_factor

_LEAST_SHARE = 2.0**-53  # a model with less never comes back in any case, and sums stay finite


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
        half_life, half_life_s: As in `SelectionPolicy`.

    >>> from clipper_stream.selection.state import ModelTotals
    >>> state = SelectionState({"a:1": ModelTotals(10.0, 1.0, 10.0, 1.0), "b:1": ModelTotals(10.0, 6.0, 10.0, 6.0)})
    >>> {model: round(weight, 3) for model, weight in Exp4().weights(state, ["a:1", "b:1"]).items()}
    {'a:1': 0.818, 'b:1': 0.182}

    Source: Freund and Schapire, "A decision-theoretic generalization of on-line learning", JCSS 55, 1997 (Hedge,
    their beta is exp(-eta)); Cesa-Bianchi and Lugosi, "Prediction, Learning, and Games", 2006, theorem 2.2; Clipper,
    section 5.2.
    """

    name: ClassVar[str] = "exp4"
    eta: float = bounded_field(0.3, above=0.0)
    half_life: float | None = bounded_field(None, above=0.0)
    half_life_s: float | None = bounded_field(None, above=0.0)

    def prepare(self, state: SelectionState, candidates: Sequence[str]) -> ActionDistribution:
        return all_of(exponential_weights(self.eta, state, candidates))


@dataclass(frozen=True, slots=True, kw_only=True)
class Exp4Clipper(SelectionPolicy):
    """The original's rule, `s_i <- s_i exp(-eta L_i / p_i)` with p_i the model's share of the weights. For comparison.

    All models are asked, so nothing has to be made up for, and dividing has a price: shares move by eta (p_i sum L -
    L_i), away from where they are equal. Who leads by luck is pushed on, and a light model is charged for each mistake
    many times as much as a heavy one, so that it cannot come back. Use `exp4`.

    The share is that of the models that the feedback scores, in the state of this partition before it. So what is added
    depends on the partition: over several of them this is not what one process would have learned, and after a change
    to another policy `weighted_loss` is too high.

    Attributes:
        eta: Learning rate, > 0; the default is the original's.
        half_life, half_life_s: As in `SelectionPolicy`.

    >>> policy, asked = Exp4Clipper(), {"a:1": 1.0, "b:1": 1.0}
    >>> policy.observe(SelectionState(), {"a:1": 1.0, "b:1": 0.0}, asked).of("a:1").weighted_loss
    2.0

    Source: `Exp4Policy` of Clipper's pull request 48 (commit bac5ec8b, 2017), where the sum of the weights changes
    while the models are gone through; here all shares are those before the feedback.
    """

    name: ClassVar[str] = "exp4_clipper"
    eta: float = bounded_field(0.01, above=0.0)
    half_life: float | None = bounded_field(None, above=0.0)
    half_life_s: float | None = bounded_field(None, above=0.0)

    def prepare(self, state: SelectionState, candidates: Sequence[str]) -> ActionDistribution:
        return all_of(exponential_weights(self.eta, state, candidates))

    def observe(
        self, state: SelectionState, losses: Mapping[str, float], propensities: Mapping[str, float]
    ) -> SelectionState:
        learned = add_losses(state, losses, propensities, discount_factor(self.half_life))
        if not losses:
            return learned
        shares = exponential_weights(self.eta, state, tuple(losses))
        totals = dict(learned.totals)
        for model, loss in losses.items():
            corrected = loss / max(shares[model], _LEAST_SHARE) - loss / propensities[model]
            totals[model] = replace(totals[model], weighted_loss=totals[model].weighted_loss + corrected)
        return replace(learned, totals=totals)
