"""UCB1: ask the model that could be the best, given how little is known of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from clipper_stream.selection.distribution import ActionDistribution, most_to
from clipper_stream.selection.parameters import bounded_field
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import ModelTotals, SelectionState

_MOST = 1e6  # feedbacks: more make the bound no wider, or what a model that joins costs would grow with all history


@dataclass(frozen=True, slots=True, kw_only=True)
class UCB1(SelectionPolicy):
    """The model with the least lower bound of its mean loss, and a uniform share for all.

    The bound is loss / n_i - sqrt(padding ln(n) / n_i), n_i feedbacks of the model and n of all candidates, or a
    million if there are more: it is certain enough, and the share for all loses far more from there on. UCB1
    itself leaves nothing to chance: each query would go to one known model with probability 1, and no log of it could
    say what another would have done. So a uniform share is mixed in, which costs its part of the regret for ever; with
    `exploration=0` it is the paper's. A candidate without feedback is asked first. Feedback that is late leaves the
    bound as it is, so until then *all* queries go to that model: where that matters, take `thompson`.

    Attributes:
        padding: Width of the bound, >= 0. The paper's 2 suits the worst losses in [0, 1], half of them 1; it takes
            tens of thousands of feedbacks to tell 2 % errors from 4 %.
        exploration: Share of queries spread evenly over all candidates, in [0, 1].
        half_life: Feedbacks of one partition after which an observation weighs half, > 0 (discounted UCB); None: never
            forget.
        half_life_s: Seconds of the log after which an observation weighs half, > 0; None: time changes nothing.

    >>> from clipper_stream.selection.state import ModelTotals
    >>> state = SelectionState({"a:1": ModelTotals(90.0, 9.0, 90.0, 9.0), "b:1": ModelTotals(4.0, 1.0, 4.0, 1.0)})
    >>> UCB1(exploration=0.5).weights(state, ["a:1", "b:1"])
    {'a:1': 0.25, 'b:1': 0.75}

    Source: Auer, Cesa-Bianchi and Fischer, "Finite-time analysis of the multiarmed bandit problem", Machine Learning
    47, 2002, figure 1; Garivier and Moulines, "On upper-confidence bound policies for switching bandit problems", ALT
    2011, section 2 (padding is 4 times their xi, and their B is 1).
    """

    name: ClassVar[str] = "ucb1"
    padding: float = bounded_field(2.0)
    exploration: float = bounded_field(0.05, most=1.0)
    half_life: float | None = bounded_field(None, above=0.0)
    half_life_s: float | None = bounded_field(None, above=0.0)

    def prepare(self, state: SelectionState, candidates: Sequence[str]) -> ActionDistribution:
        totals = {model: state.of(model) for model in candidates}
        spread = self.padding * math.log(min(_MOST, max(1.0, sum(one.count for one in totals.values()))))
        chosen = min(candidates, key=lambda model: _least(totals[model], spread))
        return most_to(chosen, candidates, self.exploration)


def _least(totals: ModelTotals, spread: float) -> float:
    """The lower bound of the mean loss; minus infinity for a model without feedback."""
    if totals.count == 0.0:
        return -math.inf
    return totals.loss / totals.count - math.sqrt(spread / totals.count)
