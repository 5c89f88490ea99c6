"""Single: always the same model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from clipper_stream.errors import InvalidSetting
from clipper_stream.selection.distribution import ActionDistribution, most_to
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
