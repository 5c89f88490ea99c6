"""What a model is: a batch of rows in, one output a row out."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from numpy.typing import NDArray

Rows: TypeAlias = NDArray[Any] | list[Any]
"""A matrix, rows first, for numeric inputs; a list of texts, byte strings or JSON values for the others."""


@runtime_checkable
class Model(Protocol):
    """A model: anything with `predict_batch`.

    >>> class Length:
    ...     def predict_batch(self, inputs: Rows) -> Sequence[Any]:
    ...         return [len(row) for row in inputs]
    >>> isinstance(Length(), Model)
    True
    """

    def predict_batch(self, inputs: Rows, /) -> Sequence[Any] | NDArray[Any]:
        """Return one output a row, in the order of the rows.

        Args:
            inputs: At least one row, all of one dtype and shape. It may be called again with a part of the same
                rows, so it must leave them as they are.
        """
        ...


@runtime_checkable
class WarmsUp(Protocol):
    """A model that prepares itself (compiles, fills its caches) better than a row of zeros would do it."""

    def warm_up(self) -> None:
        """Called once, after loading and before the first batch."""
        ...
