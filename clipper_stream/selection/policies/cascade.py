"""Cascade: ask the first model, and the last one where the first is unsure, for a bounded share of the queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from clipper_stream.selection.confidence import BINS, confidence_bin
from clipper_stream.selection.contextual import ContextualChoice
from clipper_stream.selection.distribution import UNDRAWABLE, ActionDistribution, Decision, forced_decision
from clipper_stream.selection.parameters import bounded_field
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState, add_losses, discount_factor
from clipper_stream.selection.sufficient_statistics import Features, normal_equations, width_of

Floats = NDArray[np.float64]

_LEAST = 50.0  # feedbacks, before which the budget is spent at random
_PRIOR = 10.0  # feedbacks of each bin at no gain: the last model is asked for what it was seen to do better
_NONE = 1e-9  # feedbacks, in the place of none


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade(SelectionPolicy):
    """Asks the first candidate, and then the last one with a probability that the confidence of the first decides.

    That confidence is the feature that it chooses by (`asks_again`). Losses of both are summed by its bin. Below the
    threshold the last candidate is asked, whose output is the answer then. The threshold has the greatest gain (loss of
    the first less that of the last, over all queries below it) within the budget; where it lies within a bin, queries
    of the bin are drawn. Shares are those of the queries with feedback. Other candidates are not asked.

    Attributes:
        budget: Share of the queries that may ask the last candidate, exploration included, in [0, 1].
        exploration: Share of the queries, in [0, 1], that ask it with probability `budget` whatever the confidence: so
            it learns where the last one is better, and replay can evaluate other thresholds.
        half_life, half_life_s: As in `SelectionPolicy`.

    >>> policy, state = Cascade(budget=0.5, exploration=0.2), SelectionState()
    >>> for number in range(200):  # where small:1 is unsure it is wrong, and large:1 is right
    ...     confidence, loss = (0.3, 1.0) if number % 4 == 0 else (0.95, 0.0)
    ...     losses, asked = {"small:1": loss, "large:1": 0.0}, {"small:1": 1.0, "large:1": 0.5}
    ...     state = policy.observe_for(state, losses, asked, [confidence])
    >>> choice = policy.by_features(state, ["small:1", "large:1"])
    >>> [round(choice.given([confidence]).weights["large:1"], 2) for confidence in (0.3, 0.95)]
    [0.9, 0.1]

    Source: Chen, Zaharia and Zou, "FrugalGPT", 2023, section 3 (LLM cascade); Jitkrittum et al., "When does
    confidence-based cascade deferral suffice?", NeurIPS 2023 (defer where the second model is expected to be better).
    """

    name: ClassVar[str] = "cascade"
    asks_again: ClassVar[bool] = True
    budget: float = bounded_field(0.2, most=1.0)
    exploration: float = bounded_field(0.05, most=1.0)
    half_life: float | None = bounded_field(None, above=0.0)
    half_life_s: float | None = bounded_field(None, above=0.0)

    def prepare(self, state: SelectionState, candidates: Sequence[str]) -> ActionDistribution:
        (counts, _), chances = _by_bin(state, candidates[0]), self.chances(state, candidates[0], candidates[-1])
        share = float(counts @ chances / counts.sum()) if counts.any() else self.budget
        share = share if len(candidates) > 1 else 0.0
        return ActionDistribution(_weights(candidates, share), (forced_decision(candidates[:1]),), ())

    def by_features(
        self, state: SelectionState, candidates: Sequence[str]
    ) -> ContextualChoice[ActionDistribution] | None:
        if len(candidates) < 2:  # noqa: PLR2004 (a first and a last)
            return None
        chances = self.chances(state, candidates[0], candidates[-1]).tolist()
        return ContextualChoice(
            otherwise=self.prepare(state, candidates),
            choices=tuple(_second_choice(candidates, chance) for chance in chances),
            place=lambda features: confidence_bin(features[0]),
        )

    def chances(self, state: SelectionState, first: str, last: str) -> Floats:
        """Probability of asking the last model in each bin of the first one's confidence, (BINS,)."""
        (counts, losses), (others, other_losses) = _by_bin(state, first), _by_bin(state, last)
        if counts.sum() < _LEAST or not others.any():
            return np.full(BINS, self.budget)
        own = losses / np.maximum(counts, _NONE)
        other = (other_losses + _PRIOR * own) / (others + _PRIOR)
        gains, shares = np.cumsum(counts * (own - other)), counts / counts.sum()
        room = self.budget - (np.cumsum(shares) - shares)
        asked = np.clip(room / np.maximum(shares, _NONE), 0.0, 1.0)
        asked[int(gains.argmax()) + 1 if gains.max() > 0.0 else 0 :] = 0.0
        chances: Floats = (1.0 - self.exploration) * asked + self.exploration * self.budget
        return chances

    def observe_for(
        self,
        state: SelectionState,
        losses: Mapping[str, float],
        propensities: Mapping[str, float],
        features: Features,
    ) -> SelectionState:
        bins: list[float] = []
        chance = max((propensities.get(model, 0.0) for model in losses), default=0.0)
        if features and chance > 0.0:  # 1 where the first model is scored in any case, as it is by labels
            bins = [0.0] * BINS
            bins[confidence_bin(features[0])] = 1.0 / chance
        return add_losses(state, losses, propensities, discount_factor(self.half_life), features=bins)


def _by_bin(state: SelectionState, model: str) -> tuple[Floats, Floats]:
    """Feedbacks and losses of a model by bin, each weighed: the products of its features with 1 and with the loss."""
    moments = state.of(model).moments
    matrix, vector = normal_equations(moments, max(BINS + 1, width_of(moments)))
    return matrix[0, 1 : BINS + 1], vector[1 : BINS + 1]


def _weights(candidates: Sequence[str], share: float) -> dict[str, float]:
    return dict.fromkeys(candidates, 0.0) | {candidates[-1]: share, candidates[0]: 1.0 - share}


def _second_choice(candidates: Sequence[str], chance: float) -> ActionDistribution:
    """Stay with the first model, which was asked in any case, or be answered by the last one."""
    first, last = candidates[0], candidates[-1]
    stays = Decision(models=(first,), propensities=(1.0,), served=(first,), served_propensity=1.0 - chance)
    asks = Decision(models=(first, last), propensities=(1.0, chance), served=(last,), served_propensity=chance)
    drawn = tuple(one for one in (stays, asks) if one.served_propensity >= UNDRAWABLE)
    return ActionDistribution(_weights(candidates, chance), drawn, (1.0 - chance,) * (len(drawn) - 1))
