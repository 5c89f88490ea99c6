"""A model with the rows that it is tried with, and what its outputs are compared by."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipper_stream.models.model import Model, Rows
from clipper_stream.models.runner import BatchOutcome, predict_rows
from clipper_stream.query.inputs import RowSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model with the rows that the laws try it with; as `check_model` has them, rows converted.

    Attributes:
        source: Arguments of `load_model` for another process; None for a model that was made here.
    """

    model: Model
    rows: Rows
    spec: RowSpec
    bad_rows: Rows
    source: Mapping[str, Any] | None
    deterministic: bool
    tolerance: float
    seed: int

    def ask(self, rows: Rows) -> BatchOutcome:
        """Run a batch as a host would; the model gets its own copy of the rows."""
        return predict_rows(self.model, copied(rows))

    def one_by_one(self) -> list[Any]:
        """The outputs of batches of one row each."""
        return [self.ask(self.rows[row : row + 1]).outputs[0] for row in range(len(self.rows))]

    def same(self, one: Any, other: Any) -> bool:
        """Whether two plain outputs are the same, numbers within the tolerance."""
        if _is_number(one) and _is_number(other):
            return math.isclose(one, other, rel_tol=self.tolerance, abs_tol=self.tolerance)
        if isinstance(one, list) and isinstance(other, list):
            return len(one) == len(other) and all(map(self.same, one, other))
        if isinstance(one, dict) and isinstance(other, dict):
            return one.keys() == other.keys() and all(self.same(one[key], other[key]) for key in one)
        return type(one) is type(other) and bool(one == other)


def copied(rows: Rows) -> Rows:
    """The rows, of which a model may change every element without changing these."""
    return copy.deepcopy(rows)


def joined(first: Rows, then: Rows) -> Rows:
    """Return the rows of both."""
    if isinstance(first, np.ndarray) and isinstance(then, np.ndarray):
        return np.concatenate([first, then])
    return [*first, *then]


def picked(rows: Rows, order: list[int]) -> Rows:
    """Return the rows at these indices, in this order."""
    return rows[order] if isinstance(rows, np.ndarray) else [rows[index] for index in order]


def equal_rows(rows: Rows, others: Rows) -> bool:
    """Whether they are the same, element by element."""
    if isinstance(rows, np.ndarray):
        return bool(np.array_equal(rows, np.asarray(others)))
    return rows == others


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
