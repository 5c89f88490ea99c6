"""How rows are put into requests: of one dtype and shape each, and none too large for a Kafka record."""

import marshal
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper_stream.query.in_flight import InFlightQuery

MAX_FRAME_ROWS = 1024
MAX_FRAME_BYTES = 512 * 1024
"""Half of what a broker takes by default: a row is never split, and one of half a megabyte still goes."""
UTF8_BYTES = 4
"""Most bytes of a character."""
_MARSHAL_FORMAT = 2  # later formats write an object that comes again as a reference

Framed = tuple[Sequence[int], Any]
"""Which of the rows asked for go together, by index, and the rows: a matrix or a list."""


def frames_of(owners: Sequence[InFlightQuery], places: Sequence[int]) -> Iterable[Framed]:
    """The rows that these places of these queries are about, in frames; a row larger than a frame may be goes alone."""
    matrix = _as_one_matrix(owners, places)
    if matrix is not None:
        yield from _of_one_matrix(matrix)
        return
    rows = [owner.block[owner.row(place)] for owner, place in zip(owners, places, strict=True)]
    for group in _same_shape(rows):
        for frame in _not_too_large(group, rows):
            chosen = [rows[index] for index in frame]
            yield frame, np.stack(chosen) if isinstance(chosen[0], np.ndarray) else chosen


def _as_one_matrix(owners: Sequence[InFlightQuery], places: Sequence[int]) -> NDArray[Any] | None:
    """All rows together, where they are of one dtype and shape: cut from the blocks, which are few."""
    parts: list[NDArray[Any]] = []
    start, count = 0, len(owners)
    while start < count:
        block, stop = owners[start].block, start + 1
        if not isinstance(block, np.ndarray):
            return None
        while stop < count and owners[stop].block is block:
            stop += 1
        asked = zip(owners[start:stop], places[start:stop], strict=True)
        rows = [owner.first + place % owner.count for owner, place in asked]
        parts.append(block if rows == list(range(len(block))) else block[rows])
        start = stop
    if len({(part.dtype, part.shape[1:]) for part in parts}) > 1:
        return None
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _of_one_matrix(matrix: NDArray[Any]) -> Iterable[Framed]:
    count = len(matrix)
    most = max(1, min(MAX_FRAME_ROWS, MAX_FRAME_BYTES // max(1, matrix[0].nbytes)))
    for start in range(0, count, most):
        stop = min(count, start + most)
        yield range(start, stop), matrix[start:stop]


def _same_shape(rows: Sequence[Any]) -> Iterable[list[int]]:
    groups: dict[Any, list[int]] = {}
    for index, row in enumerate(rows):
        shape = (row.dtype.str, row.shape) if isinstance(row, np.ndarray) else None
        groups.setdefault(shape, []).append(index)
    return groups.values()


def _not_too_large(group: list[int], rows: Sequence[Any]) -> Iterable[list[int]]:
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
    """At least what the row takes in a frame."""
    if isinstance(row, np.ndarray):
        return row.nbytes
    if isinstance(row, bytes):
        return len(row)
    if isinstance(row, str):
        return len(row) if row.isascii() else UTF8_BYTES * len(row)
    return len(marshal.dumps(row, _MARSHAL_FORMAT))  # of every JSON value at least as long as msgpack
