"""Rows of many queries for one model version, as columns: from the look-up in the cache to the output.

Rules of this file:
- All columns have one entry a row; owner and slot say which output of which query the row is for.
- Rows go into requests by dtype and shape, and no request is too large for a Kafka record.
"""

import marshal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from old_core.in_flight import InFlightQuery
from old_core.query_block import QueryBlock

MAX_FRAME_ROWS = 1024
MAX_FRAME_BYTES = 512 * 1024
"""Half of what a broker takes by default: a row is never split, and one of half a megabyte still goes."""
UTF8_BYTES = 4
"""Most bytes of a character."""
MARSHAL_FORMAT = 2  # later formats write an object that comes again as a reference

Owner = InFlightQuery | QueryBlock
"""Whose rows they are: a query's or an audit's, or those of many queries in a block."""
Frame = tuple[Sequence[int], Any]
"""Indices of the rows that one request asks for, and these rows: a matrix or a list."""


@dataclass(slots=True)
class RowBatch:
    """Rows for one model version.

    Attributes:
        owners: The query, audit or block that each row belongs to.
        slots: The slot of each row in its owner.
        keys: The key under which each output is cached and shared; None where it may be neither.
        outputs: An output or a `Failure` for each row; empty until they arrive.
    """

    ref: str
    owners: list[Owner] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    outputs: Sequence[Any] = ()

    def add(self, owner: Owner, slot: int, key: bytes | None) -> None:
        """Append a row."""
        self.owners.append(owner)
        self.slots.append(slot)
        self.keys.append(key)

    def extend(self, other: "RowBatch") -> None:
        """Append all rows of `other`."""
        self.owners += other.owners
        self.slots += other.slots
        self.keys += other.keys

    def at(self, indices: Sequence[int]) -> "RowBatch":
        """The rows at `indices`."""
        owners, slots, keys = self.owners, self.slots, self.keys
        return RowBatch(
            self.ref,
            [owners[index] for index in indices],
            [slots[index] for index in indices],
            [keys[index] for index in indices],
        )

    def runs(self) -> Iterator[tuple[Owner, slice]]:
        """Consecutive rows that were converted together, with the owner of the first."""
        start = 0
        for _, group in groupby(map(attrgetter("block"), self.owners)):
            stop = start + len([*group])
            yield self.owners[start], slice(start, stop)
            start = stop

    def set_keys(self, digest: bytes) -> list[bytes]:
        """Give each row the key that it has for a model version with this digest (`caching.keys`)."""
        block, hashes, keys = None, list[bytes](), list[bytes]()
        for owner, slot in zip(self.owners, self.slots, strict=True):
            if owner.block is not block:
                block = owner.block
                hashes = block.hashes
            keys.append(digest + hashes[owner.first + slot % owner.count])
        self.keys = keys  # type: ignore[assignment]
        return keys

    def deadlines_s(self) -> list[float]:
        """When each output is of no more use, seconds since the epoch."""
        return [owner.due_s(slot) for owner, slot in zip(self.owners, self.slots, strict=True)]

    def frames(self) -> Iterable[Frame]:
        """The rows in frames of one dtype and shape; a row larger than a frame may be goes alone."""
        matrix = self._as_one_matrix()
        if matrix is not None:
            yield from _matrix_frames(matrix)
            return
        rows = [
            owner.block.rows[owner.first + slot % owner.count]
            for owner, slot in zip(self.owners, self.slots, strict=True)
        ]
        for group in _same_shape(rows):
            for frame in _not_too_large(group, rows):
                chosen = [rows[index] for index in frame]
                yield frame, np.stack(chosen) if isinstance(chosen[0], np.ndarray) else chosen

    def _as_one_matrix(self) -> NDArray[Any] | None:
        """All rows as one matrix, where they are of one dtype and shape: cut from the blocks, which are few."""
        parts: list[NDArray[Any]] = []
        for first, some in self.runs():
            matrix = first.block.rows
            if not isinstance(matrix, np.ndarray):
                return None
            asked = zip(self.owners[some], self.slots[some], strict=True)
            rows = [owner.first + slot % owner.count for owner, slot in asked]
            parts.append(matrix if rows == list(range(len(matrix))) else matrix[rows])
        if len({(part.dtype, part.shape[1:]) for part in parts}) > 1:
            return None
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def rows_by_cache(
    pendings: Iterable[InFlightQuery], blocks: Iterable[QueryBlock] = ()
) -> dict[tuple[int, str], RowBatch]:
    """All rows of the queries, by the partition and the model version whose cache they are looked up in."""
    batches: dict[tuple[int, str], RowBatch] = {}
    for block in blocks:
        for ref, slots in block.slots_by_ref().items():
            rows = batches.get((block.partition, ref))
            if rows is None:
                rows = batches[block.partition, ref] = RowBatch(ref)
            rows.owners += [block] * len(slots)
            rows.slots += slots
    for pending in pendings:
        partition, count = pending.query.partition, pending.count
        for model, ref in enumerate(pending.decision.models):
            rows = batches.get((partition, ref))
            if rows is None:
                rows = batches[partition, ref] = RowBatch(ref)
            if count == 1:
                rows.owners.append(pending)
                rows.slots.append(model)
            else:
                rows.owners.extend([pending] * count)
                rows.slots.extend(range(model * count, (model + 1) * count))
    return batches


def _matrix_frames(matrix: NDArray[Any]) -> Iterable[Frame]:
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
    """An upper bound of the bytes that the row takes in a frame."""
    if isinstance(row, np.ndarray):
        return row.nbytes
    if isinstance(row, bytes):
        return len(row)
    if isinstance(row, str):
        return len(row) if row.isascii() else UTF8_BYTES * len(row)
    return len(marshal.dumps(row, MARSHAL_FORMAT))  # of every JSON value at least as long as msgpack
