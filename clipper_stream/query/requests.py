"""Requests to model versions, and the slots whose rows they carry.

Rules of this file:
- Rows go into requests by dtype and shape, and no request is too large for a Kafka record.
"""

import marshal
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipper_stream.query.batch import Failure, QueryBatch

MAX_FRAME_ROWS = 1024
MAX_FRAME_BYTES = 512 * 1024
"""Half of what a broker takes by default: a row is never split, and one of half a megabyte still goes."""
UTF8_BYTES = 4
"""Most bytes of a character."""
MARSHAL_FORMAT = 2  # later formats write an object that comes again as a reference

Slot = tuple[QueryBatch, int]


class Part(NamedTuple):
    """Slots of one batch that ask one model version.

    Attributes:
        keys: Under which each output is cached and shared; none where it may be neither.
    """

    batch: QueryBatch
    slots: Sequence[int]
    keys: Sequence[bytes]

    def at(self, places: Sequence[int]) -> "Part":
        keys = [self.keys[place] for place in places] if self.keys else ()
        return Part(self.batch, [self.slots[place] for place in places], keys)


@dataclass(frozen=True, slots=True)
class Request:
    """Rows for one model version, of one dtype and shape.

    Attributes:
        frame: Token of the request.
        rows: The inputs: a matrix with one row an input; or a list of texts, bytes or JSON values.
        deadlines_s: When each output is of no more use, seconds since the epoch; `inf` for never.
        asked: Whose the rows are.
        traced: For whoever carries the request out: notes about rows of sampled queries.
    """

    ref: str
    frame: int
    rows: NDArray[Any] | list[Any]
    deadlines_s: "array[float]"
    asked: Sequence[Part] = ()
    traced: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class OutputPiece:
    """Outputs of consecutive rows of one request, from `row0` on.

    Attributes:
        outputs: One a row; anything where the row failed.
        failures: Why there is no output (`late` or `error`), by index of the row in the request.
    """

    frame: int
    row0: int
    outputs: list[Any]
    failures: Mapping[int, Failure] = field(default_factory=dict)


def frames(parts: Sequence[Part]) -> Iterator[tuple[Sequence[Part], Any]]:
    """The rows in frames of one dtype and shape, and whose they are; a row larger than a frame may be goes alone."""
    matrix = _as_one_matrix(parts)
    if matrix is not None:
        for some in _matrix_frames(matrix):
            yield (parts if len(some) == len(matrix) else _at(parts, some)), matrix[some.start : some.stop]
        return
    rows = [batch.rows[batch.slot_row[slot]] for batch, slots, _ in parts for slot in slots]
    for group in _same_shape(rows):
        for indices in _not_too_large(group, rows):
            chosen = [rows[index] for index in indices]
            yield _at(parts, indices), np.stack(chosen) if isinstance(chosen[0], np.ndarray) else chosen


def _as_one_matrix(parts: Sequence[Part]) -> NDArray[Any] | None:
    """All rows as one matrix, where they are of one dtype and shape."""
    cut: list[NDArray[Any]] = []
    for batch, slots, _ in parts:
        matrix = batch.rows
        if not isinstance(matrix, np.ndarray):
            return None
        row_of = batch.slot_row
        rows = [row_of[slot] for slot in slots]
        cut.append(matrix if rows == [*range(len(matrix))] else matrix[rows])
    if len(cut) == 1:
        return cut[0]
    return np.concatenate(cut) if len({(one.dtype, one.shape[1:]) for one in cut}) == 1 else None


def _at(parts: Sequence[Part], indices: Iterable[int]) -> list[Part]:
    """The slots of some rows; those of one batch that follow each other stay together."""
    flat = [*chain.from_iterable(zip(repeat(batch), slots, keys or repeat(None)) for batch, slots, keys in parts)]
    found: list[tuple[QueryBatch, list[int], list[bytes | None]]] = []
    for batch, slot, key in (flat[index] for index in indices):
        if not found or found[-1][0] is not batch or (found[-1][2][0] is None) != (key is None):
            found.append((batch, [], []))
        found[-1][1].append(slot)
        found[-1][2].append(key)
    return [Part(batch, slots, [key for key in keys if key is not None]) for batch, slots, keys in found]


def _matrix_frames(matrix: NDArray[Any]) -> Iterator[range]:
    count = len(matrix)
    most = max(1, min(MAX_FRAME_ROWS, MAX_FRAME_BYTES // max(1, matrix[0].nbytes)))
    for start in range(0, count, most):
        yield range(start, min(count, start + most))


def _same_shape(rows: Sequence[Any]) -> Iterable[list[int]]:
    groups: dict[Any, list[int]] = {}
    for index, row in enumerate(rows):
        shape = (row.dtype.str, row.shape) if isinstance(row, np.ndarray) else None
        groups.setdefault(shape, []).append(index)
    return groups.values()


def _not_too_large(group: list[int], rows: Sequence[Any]) -> Iterator[list[int]]:
    frame: list[int] = []
    size_bytes = 0
    for index in group:
        row_bytes = _row_bytes(rows[index])
        if frame and (len(frame) >= MAX_FRAME_ROWS or size_bytes + row_bytes > MAX_FRAME_BYTES):
            yield frame
            frame, size_bytes = [], 0
        frame.append(index)
        size_bytes += row_bytes
    yield frame


def _row_bytes(row: Any) -> int:
    """An upper bound of the bytes that the row takes in a frame."""
    if isinstance(row, np.ndarray):
        return row.nbytes
    if isinstance(row, bytes):
        return len(row)
    if isinstance(row, str):
        return len(row) if row.isascii() else UTF8_BYTES * len(row)
    return len(marshal.dumps(row, MARSHAL_FORMAT))  # of every JSON value at least as long as msgpack
