"""A choice that depends on a query's features, and everything of it that can be made before the query is there.

Rules of this file:
- All choices are made once a state, with their audits and trials. Features only say which of them a query has. So a
  query costs one look at its features, and not a new distribution over decisions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from clipper_stream.selection.distribution import Decision
from clipper_stream.selection.rng import RandomSource
from clipper_stream.selection.sufficient_statistics import Features
from clipper_stream.selection.trials import PolicyChoice

C = TypeVar("C", bound=PolicyChoice)
D = TypeVar("D", bound=PolicyChoice)


@dataclass(frozen=True, slots=True, eq=False)
class ContextualChoice(Generic[C]):
    """Several choices, one of which a query's features select; used as a choice, it is that of a query without any.

    Attributes:
        otherwise: The choice for a query without features.
        choices: The choices for queries with features.
        place: Which of `choices` a query with these features has.

    >>> from clipper_stream.selection.distribution import one_of
    >>> low, high = one_of({"a:1": 1.0}, [1.0]), one_of({"b:1": 1.0}, [1.0])
    >>> choice = ContextualChoice(otherwise=low, choices=(low, high), place=lambda features: int(features[0] > 0.5))
    >>> list(choice.given([0.7]).weights), list(choice.given([]).weights)
    (['b:1'], ['a:1'])

    Source: Langford and Zhang, "The epoch-greedy algorithm for contextual multi-armed bandits", NIPS 2007 (a policy is
    a function of the context).
    """

    otherwise: C
    choices: tuple[C, ...]
    place: Callable[[Features], int]

    @property
    def weights(self) -> dict[str, float]:
        """Share of trust in each candidate for a query without features."""
        return dict(self.otherwise.weights)

    @property
    def certain(self) -> Decision | None:
        """None: the decision depends on the features."""
        return None

    def select(self, rng: RandomSource) -> Decision:
        """Draw the decision for a query without features."""
        return self.otherwise.select(rng)

    def given(self, features: Features) -> C:
        """The choice for a query with these features; an empty sequence stands for a query without any."""
        return self.choices[self.place(features)] if features else self.otherwise

    def each(self, completed: Callable[[C], D]) -> "ContextualChoice[D]":
        """Apply a function to every choice, for example to add audits and trials."""
        return ContextualChoice(
            otherwise=completed(self.otherwise), choices=tuple(map(completed, self.choices)), place=self.place
        )
