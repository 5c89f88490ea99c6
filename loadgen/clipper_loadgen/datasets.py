"""Rows to ask about, and their labels where they are known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from clipper_stream.errors import InvalidSetting
from clipper_stream.models.row_spec import RowSpec
from clipper_topics.manifests import InputSpec
from clipper_topics.plain_values import plain

MAX_RANDOM_BYTES = 1 << 28
"""Random rows are all made before the run; 256 MiB of numbers leaves room for their encodings."""
UNKNOWN_SHAPE = (16,)
"""For an application that takes rows of any length."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Rows, and one label a row. An array stays one until a row is needed: as lists it would be four times as large.

    >>> Dataset(np.eye(2), labels=[0, 1]).row(0)
    [1.0, 0.0]

    Attributes:
        rows: An array with the rows on its first axis, or a sequence of what stands in a query's `input`.
        labels: What stands in a feedback's `label`; None where the truth is not known.
    """

    rows: Any
    labels: Any = None

    def __post_init__(self) -> None:
        if not len(self.rows):
            raise InvalidSetting("the inputs have no rows: at least one is needed")
        if self.labels is not None and len(self.labels) != len(self.rows):
            raise InvalidSetting(f"{len(self.labels)} labels for {len(self.rows)} rows: one label a row is needed")

    def row(self, index: int) -> Any:
        return plain(self.rows[index])

    def label(self, index: int) -> Any:
        return plain(self.labels[index])


def random_dataset(spec: InputSpec, count: int, seed: int) -> Dataset:
    """Rows that fit an input spec, all different for any but tiny rows, without labels.

    Fewer than `count` are made where they would take more than `MAX_RANDOM_BYTES`. The same seed gives the same rows.
    """
    shape = UNKNOWN_SHAPE if spec.shape is None else spec.shape
    count = max(1, min(count, MAX_RANDOM_BYTES // (8 * math.prod(shape))))
    if spec.dtype == "json":
        return Dataset([{"value": value} for value in range(count)])
    # in JSON a float32 of three decimals would have nine of them, more than real features have
    dtype = "float64" if spec.dtype == "float32" else spec.dtype
    return Dataset(RowSpec.of(msgspec.structs.replace(spec, dtype=dtype, shape=[*shape])).random(count, seed))


def load_dataset(source: str) -> Dataset:
    """Rows of a `.npy` file, or of a `.jsonl` file with a row or `{"input": ..., "label": ...}` a line."""
    path = Path(source)
    try:
        if path.suffix == ".npy":
            return Dataset(np.load(path))
        if path.suffix == ".jsonl":
            return _from_lines(path.read_bytes().splitlines())
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise InvalidSetting(f"inputs {source!r} cannot be read: {error}") from error
    raise InvalidSetting(f"inputs {source!r}: use a .npy or a .jsonl file")


def _from_lines(lines: Sequence[bytes]) -> Dataset:
    decoded = [msgspec.json.decode(line) for line in lines if line.strip()]
    if not decoded or not isinstance(decoded[0], dict) or "input" not in decoded[0]:
        return Dataset(decoded)
    try:
        labels = [line["label"] for line in decoded] if "label" in decoded[0] else None
        return Dataset([line["input"] for line in decoded], labels)
    except (KeyError, TypeError) as error:
        raise InvalidSetting(f"every line must have the fields of the first: {error!r}") from error
