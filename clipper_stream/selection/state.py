"""Selection state: sums over feedback, one set for every policy.

Rules of this file:
- State is additive. The state of a whole is the sum of the states of its parts, in partition order.
- State is immutable and the same for every policy, so that an application can change its policy and keep what it
  learned, and replay can ask what another policy would have done.
- Plain Python floats in a fixed order: folding the same log gives the same bits.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class ModelTotals:
    """Sums over the feedback about one model; with a discount, older feedback weighs less.

    Attributes:
        count: Feedbacks in which the model's own output was scored.
        loss: Sum of the model's losses, each in [0, 1].
        weighted_loss: Sum of loss / propensity, the importance-weighted estimate of the loss over all queries.
    """

    count: float = 0.0
    loss: float = 0.0
    weighted_loss: float = 0.0

    def __add__(self, other: "ModelTotals") -> "ModelTotals":
        return ModelTotals(
            self.count + other.count, self.loss + other.loss, self.weighted_loss + other.weighted_loss
        )

    def scaled(self, factor: float) -> "ModelTotals":
        """Every sum times the factor."""
        return ModelTotals(self.count * factor, self.loss * factor, self.weighted_loss * factor)


@dataclass(frozen=True, slots=True)
class SelectionState:
    """Totals by model reference (`name:version`).

    >>> a = SelectionState({"svm:1": ModelTotals(1.0, 0.5, 1.0)})
    >>> merge([a, a]).of("svm:1").count
    2.0
    """

    totals: Mapping[str, ModelTotals] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "totals", MappingProxyType(dict(self.totals)))

    def of(self, model: str) -> ModelTotals:
        """The model's totals, zero when nothing is known of it."""
        return self.totals.get(model, _NOTHING)


_NOTHING = ModelTotals()


def merge(states: Iterable[SelectionState]) -> SelectionState:
    """The sum of partial states, added in the order given."""
    merged: dict[str, ModelTotals] = {}
    for state in states:
        for model, totals in state.totals.items():
            merged[model] = merged[model] + totals if model in merged else totals
    return SelectionState(merged)
