"""What a selection policy is: a stateless rule over an immutable state (Clipper, section 5, listing 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Protocol

from clipper_stream.selection.contextual import ContextualChoice
from clipper_stream.selection.distribution import ActionDistribution, Decision
from clipper_stream.selection.parameters import check_parameters
from clipper_stream.selection.rng import RandomSource
from clipper_stream.selection.state import SelectionState, add_losses, discount_factor
from clipper_stream.selection.sufficient_statistics import Features

__all__ = ["ActionDistribution", "Decision", "SelectionPolicy"]


class SelectionPolicy(Protocol):
    """A rule that chooses models and learns from losses. Implementations are frozen dataclasses of parameters.

    A policy that names this protocol as its base needs `prepare` alone: all else follows. One that forgets has an
    attribute `half_life` (feedbacks of one partition after which an observation weighs half, > 0; None: never), or
    `half_life_s` (seconds of the log, > 0, in all partitions alike); one that sums losses otherwise has its own
    `observe`; one that looks at a query's features has `by_features` and `observe_for`.
    """

    name: ClassVar[str]
    """The registered name, for example `exp3`."""
    asks_again: ClassVar[bool] = False
    """Whether its one feature is the confidence of the model that is asked without it: the choice by features is made
    when that model has answered."""

    def __post_init__(self) -> None:
        """Check the parameters of a dataclass, which are `bounded_field`s."""
        check_parameters(self)

    def prepare(self, state: SelectionState, candidates: Sequence[str]) -> ActionDistribution:
        """The distribution over decisions: weights, possible decisions and their probabilities.

        The state changes with feedback, much more rarely than queries arrive: keep the result until then.

        Args:
            state: Totals learned so far; a candidate without totals gets the mean weight of the others.
            candidates: Model references, at least one, each once, in the application's order.
        """
        ...

    def observe(
        self, state: SelectionState, losses: Mapping[str, float], propensities: Mapping[str, float]
    ) -> SelectionState:
        """The state after one feedback.

        Args:
            state: The state before.
            losses: Loss in [0, 1] of each model that is scored.
            propensities: Logged probability of each of these models.

        Raises:
            InvalidLabel: a loss outside [0, 1], or a propensity outside (0, 1].
        """
        return add_losses(state, losses, propensities, discount_factor(getattr(self, "half_life", None)))

    def by_features(
        self,
        state: SelectionState,  # noqa: ARG002 (for those who look at features)
        candidates: Sequence[str],  # noqa: ARG002
    ) -> ContextualChoice[ActionDistribution] | None:
        """The choices for queries with features, kept like that of `prepare`; None: the policy ignores features."""
        return None

    def observe_for(
        self,
        state: SelectionState,
        losses: Mapping[str, float],
        propensities: Mapping[str, float],
        features: Features,  # noqa: ARG002 (for those who look at features)
    ) -> SelectionState:
        """The state after one feedback about a query with these features, empty for one without; as `observe`."""
        return self.observe(state, losses, propensities)

    def observe_at(
        self,
        at_ms: int,
        state: SelectionState,
        losses: Mapping[str, float],
        propensities: Mapping[str, float],
        features: Features = (),
    ) -> SelectionState:
        """The state after one feedback at a time of the log, in milliseconds since the epoch; else as `observe_for`.

        What was learned before has aged as the policy before said; from now on it ages as this one says.
        """
        if not losses:
            return state
        half_life_s = getattr(self, "half_life_s", None)
        aged = state.aged(at_ms)
        kept_ms = 0 if half_life_s is None else max(at_ms, aged.at_ms)
        if (kept_ms, half_life_s) != (aged.at_ms, aged.half_life_s):
            rate = None if half_life_s is None else float(half_life_s)  # a manifest may have a whole number
            aged = replace(aged, at_ms=kept_ms, half_life_s=rate)
        return self.observe_for(aged, losses, propensities, features)

    def select(self, state: SelectionState, candidates: Sequence[str], rng: RandomSource) -> Decision:
        """Choose among the candidates: `prepare` and one draw.

        The source is seeded by the application and the query, so that the choice can be repeated.
        """
        return self.prepare(state, candidates).select(rng)

    def weights(self, state: SelectionState, candidates: Sequence[str]) -> dict[str, float]:
        """Share of trust in each candidate, summing to 1: the vote in combining, the line in a plot."""
        return dict(self.prepare(state, candidates).weights)
