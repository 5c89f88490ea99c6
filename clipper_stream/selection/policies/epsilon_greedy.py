"""Epsilon-greedy: ask the model with the least mean loss, and now and then any."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from clipper_stream.selection.distribution import ActionDistribution, most_to
from clipper_stream.selection.parameters import bounded_field
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState, average_loss

_PRIOR = 10.0  # feedbacks at the others' mean loss that every model starts with: one lucky answer is no record


@dataclass(frozen=True, slots=True, kw_only=True)
class EpsilonGreedy(SelectionPolicy):
    """The greedy model by mean loss, and a uniform share for all.

    The mean is loss / count of the model's own feedbacks, drawn towards the average of the candidates' means as by
    ten feedbacks at that average. A model that joins thus has the mean loss of the others, not a loss of zero.

    Attributes:
        epsilon: Share of queries spread evenly over all candidates, in [0, 1].
        half_life, half_life_s: As in `SelectionPolicy`.

    >>> from clipper_stream.selection.state import ModelTotals
    >>> state = SelectionState({"a:1": ModelTotals(50.0, 5.0, 50.0, 5.0), "b:1": ModelTotals(50.0, 4.0, 50.0, 4.0)})
    >>> EpsilonGreedy(epsilon=0.5).weights(state, ["a:1", "b:1"])
    {'a:1': 0.25, 'b:1': 0.75}

    Source: Sutton and Barto, "Reinforcement Learning", 2nd edition, 2018, section 2.4.
    """

    name: ClassVar[str] = "epsilon_greedy"
    epsilon: float = bounded_field(0.1, most=1.0)
    half_life: float | None = bounded_field(None, above=0.0)
    half_life_s: float | None = bounded_field(None, above=0.0)

    def prepare(self, state: SelectionState, candidates: Sequence[str]) -> ActionDistribution:
        return least_mean_loss(state, candidates, self.epsilon)


def least_mean_loss(state: SelectionState, candidates: Sequence[str], exploration: float) -> ActionDistribution:
    """Ask the model with the least mean loss, but for a share of exploration; see `mean_losses`."""
    means = mean_losses(state, candidates)
    return most_to(min(candidates, key=means.__getitem__), candidates, exploration)


def mean_losses(state: SelectionState, candidates: Sequence[str]) -> dict[str, float]:
    """Mean loss of each candidate in [0, 1], drawn towards the average of those that have been scored."""
    average = average_loss(state, candidates)
    return {model: (state.of(model).loss + _PRIOR * average) / (state.of(model).count + _PRIOR) for model in candidates}
