"""Tsallis-INF: one model, without anything to tune, whether losses are random or chosen by an adversary."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from clipper_stream.selection.discount import check_half_life, discount_factor
from clipper_stream.selection.distribution import ActionDistribution, one_of
from clipper_stream.selection.parameter_checks import check_number
from clipper_stream.selection.policies.tsallis_weights import tsallis_weights
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState, add_losses


@dataclass(frozen=True, slots=True, kw_only=True)
class TsallisInf(SelectionPolicy):
    """Weights that fall with the square of excess loss, at a rate that the counts give.

    Weight i is 4 / (eta_t (L_i - x))^2 with eta_t = rate / sqrt(t), x such that they sum to 1. Regret grows with log t
    where models differ steadily, and with sqrt(t) at worst; no model is ever certain to stay unasked, so one that is
    repaired is found, if late: use a half-life for that. What models missed is charged at par, which takes variance
    away as the paper's second estimator does: see `tsallis`.

    t is the number of feedbacks, of which the sums know two figures: scored outputs, which an audit makes several of,
    and the largest weighted count, which one improbable choice makes large. The lesser one is taken.

    Attributes:
        rate: How fast weights fall with excess loss, > 0. 2 is the paper's for importance weights, 4 that for its
            second estimator. With 4 regret was a third less where losses are random, and more against an adversary.
        delay: Decisions that are typically without feedback yet, >= 0. It adds entropy to the regulariser, as much as
            keeps the regret near that of no delay: it is slower, and is not led astray by what many decisions under
            one state have in common. 0: none.
        half_life: Feedbacks of one partition after which an observation weighs half, > 0; None: never forget.

    >>> from clipper_stream.selection.state import ModelTotals
    >>> state = SelectionState({"a:1": ModelTotals(50.0, 5.0, 50.0, 5.0), "b:1": ModelTotals(50.0, 40.0, 50.0, 40.0)})
    >>> {model: round(weight, 3) for model, weight in TsallisInf().weights(state, ["a:1", "b:1"]).items()}
    {'a:1': 0.972, 'b:1': 0.028}
    >>> {model: round(weight, 3) for model, weight in TsallisInf(delay=100).weights(state, ["a:1", "b:1"]).items()}
    {'a:1': 0.54, 'b:1': 0.46}

    Source: Zimmert and Seldin, "Tsallis-INF: an optimal algorithm for stochastic and adversarial bandits", JMLR 22,
    2021, theorem 1 (importance weights); for delay, Zimmert and Seldin, "An optimal algorithm for adversarial bandits
    with arbitrary delays", AISTATS 2020, section 3, with as many outstanding in each round.
    """

    name: ClassVar[str] = "tsallis_inf"
    rate: float = 2.0
    delay: float = 0.0
    half_life: float | None = None

    def __post_init__(self) -> None:
        check_number("rate", self.rate, above=0.0)
        check_number("delay", self.delay)
        check_half_life(self.half_life)

    def prepare(self, state: SelectionState, candidates: Sequence[str]) -> ActionDistribution:
        entropy = math.sqrt(2.0 * self.delay / math.log(len(candidates))) if len(candidates) > 1 else 0.0
        rounds = max(1.0, feedbacks(state, candidates) + self.delay)
        weights = tsallis_weights(state, candidates, rounds * (2.0 / self.rate) ** 2, entropy)
        return one_of(weights, weights.values())

    def observe(
        self, state: SelectionState, losses: Mapping[str, float], propensities: Mapping[str, float]
    ) -> SelectionState:
        return add_losses(state, losses, propensities, discount_factor(self.half_life))


def feedbacks(state: SelectionState, candidates: Sequence[str]) -> float:
    """How many feedbacks the candidates' sums are made of: exactly, where one model is asked or all are."""
    totals = [state.of(model) for model in candidates]
    return min(sum(one.count for one in totals), max(one.weighted_count for one in totals))
