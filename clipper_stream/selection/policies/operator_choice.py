"""Single and Split: the operator's choice, one model or a fixed share of the queries for each, whatever is learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from clipper_stream.errors import InvalidSetting
from clipper_stream.selection.distribution import ActionDistribution, most_to, one_of
from clipper_stream.selection.parameters import check_number
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState


@dataclass(frozen=True, slots=True, kw_only=True)
class Single(SelectionPolicy):
    """Asks the named model, or the first candidate. It records losses, and never acts on them.

    Attributes:
        model: Reference of the model to ask; None, or no present candidate: the first one.

    >>> Single(model="b:1").weights(SelectionState(), ["a:1", "b:1"])
    {'a:1': 0.0, 'b:1': 1.0}

    Source: Crankshaw et al., "Clipper", NSDI 2017, section 5 (the static choice that selection is compared with).
    """

    name: ClassVar[str] = "single"
    half_life: ClassVar[None] = None
    model: str | None = None

    def __post_init__(self) -> None:
        if self.model is not None and not isinstance(self.model, str):
            raise InvalidSetting(f"model is {self.model!r}: give a model reference, as 'svm:1'")

    def prepare(self, state: SelectionState, candidates: Sequence[str]) -> ActionDistribution:  # noqa: ARG002 (it never learns)
        chosen = self.model if self.model is not None and self.model in candidates else candidates[0]
        return most_to(chosen, candidates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split(SelectionPolicy):
    """Draws one model by the operator's weights. It records losses, and never acts on them.

    Attributes:
        shares: Weight of each model reference, >= 0, not all 0; they need not sum to 1. A candidate that is not
            named is not asked. Empty, or naming no present candidate: every candidate alike.

    >>> Split(shares={"a:1": 9, "b:1": 1}).weights(SelectionState(), ["a:1", "b:1"])
    {'a:1': 0.9, 'b:1': 0.1}

    Source: Kohavi et al., "Controlled experiments on the web", Data Min. Knowl. Disc. 18, 2009.
    """

    name: ClassVar[str] = "split"
    half_life: ClassVar[None] = None
    shares: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.shares, Mapping):
            raise InvalidSetting(f'shares is {self.shares!r}: give a number for each model, as {{"svm:1": 0.9}}')
        for model, share in self.shares.items():
            check_number(f"shares[{model!r}]", share)
        if self.shares and not any(self.shares.values()):
            raise InvalidSetting("shares are all 0: give at least one model a positive number")

    def prepare(self, state: SelectionState, candidates: Sequence[str]) -> ActionDistribution:  # noqa: ARG002 (it never learns)
        shares = [float(self.shares.get(model, 0.0)) for model in candidates]
        total = sum(shares)
        if total == 0.0:
            shares, total = [1.0] * len(candidates), float(len(candidates))
        weights = {model: share / total for model, share in zip(candidates, shares, strict=True)}
        return one_of(weights, weights.values())
