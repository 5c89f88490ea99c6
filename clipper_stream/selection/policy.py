"""What a selection policy is: a stateless rule over an immutable state (Clipper, section 5, listing 2)."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from clipper_stream.selection.state import SelectionState


@dataclass(frozen=True, slots=True)
class Decision:
    """Which models to ask, and how probable that choice was.

    Attributes:
        models: References (`name:version`) of the models to ask, in candidate order.
        propensities: Probability with which each was chosen, in (0, 1], same order.
    """

    models: tuple[str, ...]
    propensities: tuple[float, ...]


class SelectionPolicy(Protocol):
    """A rule that chooses models and learns from losses. Implementations are frozen dataclasses of parameters."""

    @property
    def name(self) -> str:
        """The registered name, for example `exp3`."""
        ...

    def select(self, state: SelectionState, candidates: Sequence[str], rng: random.Random) -> Decision:
        """Choose among the candidates.

        Args:
            state: Totals learned so far; a candidate without totals gets the mean weight of the others.
            candidates: Model references, at least one, in the application's order.
            rng: Seeded by the application and the query, so that the choice can be repeated.
        """
        ...

    def weights(self, state: SelectionState, candidates: Sequence[str]) -> dict[str, float]:
        """Share of trust in each candidate, summing to 1: the vote in combining, the line in a plot."""
        ...

    def observe(self, state: SelectionState, losses: Mapping[str, float], propensities: Mapping[str, float]) -> SelectionState:
        """The state after one feedback.

        Args:
            state: The state before.
            losses: Loss in [0, 1] of each model whose output is known.
            propensities: Logged probability of each of these models.
        """
        ...
