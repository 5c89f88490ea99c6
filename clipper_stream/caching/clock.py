"""The entries of a prediction cache bounded in bytes, with CLOCK eviction (Clipper, section 4.2).

Rules of this file:
- What is kept here is which keys are in the cache and how large their values are. The values are in a store of the
  caller, which reads those of `hits`, and writes and deletes what `put` says.
- Keys, values and the bookkeeping in memory count: after each call their sum is at most the budget.

The ring is a queue and the hand stands at its front: an entry that was used since the hand last saw it goes to the back
with its mark cleared (its second chance), any other is evicted.
"""

from collections import deque
from collections.abc import Mapping, Sequence

from clipper_stream.errors import InvalidSetting

ENTRY_BYTES = 200
"""Memory that an entry takes: key object, ring slot, size, used mark (190 measured, CPython 3.11)."""


class ClockCache:
    """Knows which keys to remember until the budget is full, and then forgets those not asked for lately.

    Args:
        budget_bytes: Bound on the sum over entries of key, value and `entry_bytes`; 0 keeps nothing.
        entry_bytes: What one entry costs beside its key and value, at least 0.

    Raises:
        InvalidSetting: an argument is negative.

    >>> cache = ClockCache(budget_bytes=5, entry_bytes=0)
    >>> cache.put({b"a": 1, b"b": 1}), cache.hits([b"a", b"c"])
    (([b'a', b'b'], []), [b'a'])
    >>> cache.put({b"c": 1})
    ([b'c'], [b'b'])

    Source: Corbato, A Paging Experiment with the Multics System (1969); Clipper, section 4.2.
    """

    __slots__ = ("_budget_bytes", "_entry_bytes", "_ring", "_sizes", "_used", "size_bytes")

    def __init__(self, budget_bytes: int, entry_bytes: int = ENTRY_BYTES) -> None:
        self._budget_bytes = _not_negative("budget_bytes", budget_bytes)
        self._entry_bytes = _not_negative("entry_bytes", entry_bytes)
        self._ring: deque[bytes] = deque()
        self._sizes: dict[bytes, int] = {}
        self._used: set[bytes] = set()
        self.size_bytes = 0
        """Sum over the entries that is held against the budget."""

    def __len__(self) -> int:
        """Number of entries."""
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
        """Turn the hand until the remaining entries take at most `most_bytes`."""
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


def _not_negative(setting: str, count: int) -> int:
    if count < 0:
        raise InvalidSetting(f"{setting} is {count}: set it to 0 or more")
    return count
