"""A model with the rows that it is tried with, given, guessed or odd, and what its outputs are compared by."""

import copy
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipper_stream.errors import InvalidSetting
from clipper_stream.models.model import Model, Rows
from clipper_stream.models.runner import BatchOutcome, predict_rows
from clipper_stream.query.inputs import RowSpec

_WORDS = ("a", "good", "day", "", "\u4f60\u597d", "caf\u00e9", "the quick brown fox", "x" * 300)
_ODD: dict[str, list[Any]] = {
    "text": ["", "\x00", "\U0001f600" * 50, "1e999", "x" * 10_000],
    "bytes": [b"", b"\x00" * 16, b"\xff" * 1000],
    "json": [None, {}, [], "", -1, {"unexpected": [None]}],
}


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


def random_rows(spec: RowSpec, count: int = 16, seed: int = 0) -> Rows:
    """Rows of any spec but `json`, the same for the same seed; numeric ones need a shape.

    >>> random_rows(RowSpec("uint8", (2,)), count=3).shape
    (3, 2)

    Raises:
        InvalidSetting: nobody can guess such rows.
    """
    rng = np.random.default_rng(seed)
    if spec.dtype == "text":
        return random.Random(seed).choices(_WORDS, k=count)  # noqa: S311 - samples, no secrets
    if spec.dtype == "bytes":
        return [rng.bytes(int(length)) for length in rng.integers(0, 200, count)]
    if spec.dtype == "json" or spec.shape is None:
        shape = "" if spec.dtype == "json" else ", or the shape of one (--shape 64)"
        raise InvalidSetting(f"{spec.dtype} rows of unknown content cannot be guessed: give some (--rows FILE){shape}")
    size = (count, *spec.shape)
    if spec.dtype.startswith("float"):
        return rng.normal(size=size).astype(spec.dtype)
    return rng.integers(0, 256, size).astype(spec.dtype)


def odd_rows(spec: RowSpec, like: Rows) -> Rows:
    """Rows that fit the spec and that few models expect: zeros, extremes, empty texts; numeric ones like others."""
    if not isinstance(like, np.ndarray):
        return list(_ODD.get(spec.dtype, []))
    kind = np.finfo(like.dtype) if like.dtype.kind == "f" else np.iinfo(like.dtype)
    values = np.array([0, kind.max, kind.min, 1], like.dtype)
    return np.stack([np.full(like.shape[1:], value, like.dtype) for value in values])
