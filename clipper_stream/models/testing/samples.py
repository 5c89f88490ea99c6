"""Rows to try a model with, where nobody gave any, and rows that few models expect."""

import random
from typing import Any

import numpy as np

from clipper_stream.errors import InvalidSetting
from clipper_stream.models.model import Rows
from clipper_stream.query.inputs import RowSpec

_WORDS = ("a", "good", "day", "", "\u4f60\u597d", "caf\u00e9", "the quick brown fox", "x" * 300)
_ODD: dict[str, list[Any]] = {
    "text": ["", "\x00", "\U0001f600" * 50, "1e999", "x" * 10_000],
    "bytes": [b"", b"\x00" * 16, b"\xff" * 1000],
    "json": [None, {}, [], "", -1, {"unexpected": [None]}],
}


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
        raise InvalidSetting(f"rows of dtype {spec.dtype!r} and shape {spec.shape} cannot be guessed: give some")
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
