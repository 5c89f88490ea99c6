"""Contexts of decisions as numbers, and tables with a row a context that are added though their rows differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper_stream.evaluation.log.columns import Bools, Codes, DecisionColumns, Floats

Names = tuple[str | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """The context of each decision, as a number.

    Attributes:
        names: Contexts that `code` counts through; None is "without one".
        code: Index into `names`, (n,).

    >>> Contexts(names=("x", "y"), code=np.array([0, 1, 1], np.int32)).totals(np.array([[1.0], [2.0], [3.0]])).tolist()
    [[1.0], [5.0]]

    Source: Langford and Zhang, "The epoch-greedy algorithm for contextual multi-armed bandits", NeurIPS 2007.
    """

    names: Names
    code: Codes

    @classmethod
    def of(cls, columns: DecisionColumns) -> "Contexts":
        """The contexts of the decisions with feedback, in the order of their `Choices`."""
        rows = columns.with_feedback
        return cls(names=columns.contexts, code=columns.context if rows.all() else columns.context[rows])

    def totals(self, values: Floats | Bools) -> Floats:
        """Sums of the values, (n, K), by context, (C, K)."""
        return totals(self.code, len(self.names), values)

    def among(self, names: Names) -> Codes:
        """The same contexts by their numbers in another vocabulary; len(names) where it has no such context."""
        return self.code if names == self.names else numbers(self.names, names)[self.code]


def totals(code: NDArray[Any], size: int, values: Floats | Bools) -> Floats:
    """Sums of the values, (n, K), by code, (size, K)."""
    columns = [np.bincount(code, weights=column, minlength=size) for column in values.T]
    return np.stack(columns, axis=1).astype(np.float64, copy=False) if columns else np.zeros((size, 0))


def numbers(names: Names, among: Names) -> Codes:
    """Return the index of each name among others; `len(others)` for a name that is not there."""
    place = {name: number for number, name in enumerate(among)}
    return np.array([place.get(name, len(among)) for name in names], np.int32)


def together(parts: Sequence[tuple[Names, Floats]]) -> tuple[Names, Floats]:
    """The sum of tables whose last axis but one is the contexts, and the names of its rows.

    >>> names, table = together([(("x",), np.array([[1.0]])), (("y", "x"), np.array([[2.0], [3.0]]))])
    >>> names, table.tolist()
    (('x', 'y'), [[4.0], [2.0]])
    """
    names = tuple(dict.fromkeys(name for part, _ in parts for name in part))
    first = parts[0][1]
    whole = np.zeros((*first.shape[:-2], len(names), first.shape[-1]))
    for part, table in parts:
        if part == names:
            whole += table
        else:
            whole[..., numbers(part, names), :] += table
    return names, whole
