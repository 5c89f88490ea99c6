"""How rows are put into requests: of one dtype and shape each, and none too large for a Kafka record."""

import marshal
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from clipper_stream.routing.pending import Slot

MAX_FRAME_ROWS = 1024
MAX_FRAME_BYTES = 512 * 1024
"""Half of what a broker takes by default: a row is never split, and one of half a megabyte still goes."""
UTF8_BYTES = 4
"""Most bytes of a character."""
_MARSHAL_FORMAT = 2  # later formats write an object that comes again as a reference


def frames_of(slots: Sequence[Slot]) -> Iterable[list[int]]:
    """Which slots go together, by index; a row that is larger than a frame may be goes alone."""
    for group in _same_shape(slots):
        yield from _not_too_large(group, slots)


def stack(slots: Sequence[Slot]) -> Any:
    """The rows of slots of one dtype and shape: a matrix, or a list."""
    rows = [slot.input for slot in slots]
    return np.stack(rows) if isinstance(slots[0].pending.rows, np.ndarray) else rows


def _same_shape(slots: Sequence[Slot]) -> Iterable[list[int]]:
    groups: dict[Any, list[int]] = {}
    for index, slot in enumerate(slots):
        rows = slot.pending.rows
        shape = (rows.dtype.str, rows.shape[1:]) if isinstance(rows, np.ndarray) else None
        groups.setdefault(shape, []).append(index)
    return groups.values()


def _not_too_large(group: list[int], slots: Sequence[Slot]) -> Iterable[list[int]]:
    frame: list[int] = []
    size_bytes = 0
    for index in group:
        row_bytes = _row_bytes(slots[index].input)
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
