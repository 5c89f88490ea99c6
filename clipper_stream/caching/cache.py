"""A prediction cache: keys of 8 bytes for the model version and 16 for the row; entries bounded in bytes, by CLOCK.

Rules of this file:
- Other model bytes, another dtype or another row shape give another key: an entry can be missed, never be wrong.
- Keys outlive the process (the cache is on disk), so nothing here depends on the process's hash seed.
- What is kept here is which keys are in the cache and how large their values are. The values are in a store of the
  caller, which reads those of `hits`, and writes and deletes what `put` says.
- Keys, values and the bookkeeping in memory count: after each call their sum is at most the budget.

The ring is a queue and the hand stands at its front: an entry that was used since the hand last saw it goes to the back
with its mark cleared (its second chance), any other is evicted.
"""

import hashlib
import marshal
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from clipper_stream.errors import InvalidInput

DIGEST_BYTES = 8
MARSHAL_FORMAT = 2  # later formats write shared objects as references, so that equal rows could differ


def version_digest(ref: str, sha256: str | None) -> bytes:
    """Eight bytes that stand for a model version, `name:version`, and the digest of its file, if there is one.

    >>> version_digest("svm:1", "00ff") == version_digest("svm:1", "00fe")
    False
    """
    return hashlib.blake2b(f"{ref}\n{sha256 or ''}".encode(), digest_size=DIGEST_BYTES).digest()


def row_hashes(rows: NDArray[np.generic] | Sequence[Any]) -> list[bytes]:
    """One 128-bit hash a row, of dtype, shape and bytes; a key is a version's digest and the hash of a row.

    Raises:
        InvalidInput: a row is no number, text, bytes or JSON value, or the matrix has no rows axis.

    >>> hashes = row_hashes(np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]))
    >>> len(hashes[0]), hashes[0] == hashes[1], hashes[0] == hashes[2]
    (16, False, True)

    Source: XXH3, https://github.com/Cyan4973/xxHash; not keyed against an adversary who searches for collisions.
    """
    if isinstance(rows, np.ndarray):
        return _matrix_hashes(rows)
    return [_row_hash(row) for row in rows]


def _matrix_hashes(matrix: NDArray[np.generic]) -> list[bytes]:
    if matrix.ndim == 0 or matrix.dtype.hasobject:
        raise InvalidInput(
            f"an array of shape {matrix.shape} and dtype {matrix.dtype} has no rows of plain numbers: "
            "give numbers with the rows on the first axis"
        )
    count = len(matrix)
    seed = _seed(matrix.dtype, matrix.shape[1:])
    data = matrix.tobytes()
    width = len(data) // max(1, count)
    hashed = xxhash.xxh3_128_digest
    return [hashed(data[row * width : (row + 1) * width], seed) for row in range(count)]


@lru_cache(maxsize=256)  # as many input specs at a time; computing it costs more than hashing a small row
def _seed(dtype: np.dtype[np.generic], row_shape: tuple[int, ...]) -> int:
    return xxhash.xxh3_64_intdigest(f"{dtype.str}{row_shape}".encode())


def _row_hash(row: Any) -> bytes:
    """Hash the row's value and types: 1, 1.0, True and "1" are four keys."""
    if isinstance(row, np.ndarray):
        return _matrix_hashes(row[np.newaxis])[0]
    try:
        return xxhash.xxh3_128_digest(marshal.dumps(row, MARSHAL_FORMAT))
    except ValueError as error:
        raise InvalidInput(f"a row of type {type(row).__name__} is no JSON value: {error}") from error


# --- entries --------------------------------------------------------------------------------------------------------
ENTRY_BYTES = 200
"""Memory that an entry takes: key object, ring slot, size, used mark (190 measured, CPython 3.11)."""


class ClockCache:
    """Knows which keys to remember until the budget is full, and then forgets those not asked for lately.

    Args:
        budget_bytes: Bound on the sum over entries of key, value and `entry_bytes`; 0 keeps nothing.
        entry_bytes: What one entry costs beside its key and value.

    >>> cache = ClockCache(budget_bytes=5, entry_bytes=0)
    >>> cache.put({b"a": 1, b"b": 1}), cache.hits([b"a", b"c"])
    (([b'a', b'b'], []), [b'a'])
    >>> cache.put({b"c": 1})
    ([b'c'], [b'b'])

    Source: Corbato, A Paging Experiment with the Multics System (1969); Clipper, section 4.2.
    """

    __slots__ = ("_budget_bytes", "_entry_bytes", "_ring", "_sizes", "_used", "size_bytes")

    def __init__(self, budget_bytes: int, entry_bytes: int = ENTRY_BYTES) -> None:
        self._budget_bytes, self._entry_bytes = budget_bytes, entry_bytes
        self._ring: deque[bytes] = deque()
        self._sizes: dict[bytes, int] = {}
        self._used: set[bytes] = set()
        self.size_bytes = 0
        """Sum over the entries that is held against the budget."""

    def __len__(self) -> int:
        return len(self._ring)

    def hits(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those of the keys that have an entry, in order. Each hit is a use."""
        sizes = self._sizes
        found = [key for key in keys if key in sizes]
        self._used.update(found)
        return found

    def put(self, value_bytes: Mapping[bytes, int]) -> tuple[list[bytes], list[bytes]]:
        """Enter values of these sizes, or change the sizes of entries; one larger than the budget is not kept.

        Returns:
            Keys whose values are to be written, and keys whose values are to be deleted.
        """
        sizes, ring, most_bytes = self._sizes, self._ring, self._budget_bytes
        gone: list[bytes] = []
        for key, count in value_bytes.items():
            size = len(key) + count + self._entry_bytes
            if key in sizes or self.size_bytes + size > most_bytes:
                self._enter(key, size, gone)
            else:
                ring.append(key)
                sizes[key] = size
                self.size_bytes += size
        written = [key for key in value_bytes if key in sizes]
        return written, [key for key in dict.fromkeys(gone) if key not in sizes]

    def _enter(self, key: bytes, size: int, gone: list[bytes]) -> None:
        """Make room, then place a new entry behind the hand: it cannot be evicted by its own arrival."""
        before = self._sizes.get(key)
        if size > self._budget_bytes:
            self._remove(key)
            gone.append(key)
        elif before is None:
            self._evict(self._budget_bytes - size, gone)
            self._ring.append(key)
            self._sizes[key] = size
            self.size_bytes += size
        else:
            self._sizes[key] = size
            self.size_bytes += size - before
            self._evict(self._budget_bytes, gone)

    def _evict(self, most_bytes: int, gone: list[bytes]) -> None:
        while self.size_bytes > most_bytes:
            key = self._ring.popleft()
            if key in self._used:
                self._used.remove(key)
                self._ring.append(key)
            else:
                self.size_bytes -= self._sizes.pop(key)
                gone.append(key)

    def _remove(self, key: bytes) -> None:
        """Take an entry out wherever it stands; rare, since the output of a model version seldom changes its size."""
        if key in self._sizes:
            self._ring.remove(key)
            self._used.discard(key)
            self.size_bytes -= self._sizes.pop(key)
