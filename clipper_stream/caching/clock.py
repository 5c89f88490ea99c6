"""A prediction cache bounded in bytes, with CLOCK eviction (Clipper, section 4.2), over a store that the caller gives.

Rules of this file:
- The store holds exactly the entries on the ring; this cache is its only writer.
- Keys, values and the bookkeeping in memory count: after each call their sum is at most the budget.
- One `get_many` reads the store at most once, one `put_many` writes it at most once.

The ring is a queue and the hand stands at its front: an entry that was used since the hand last saw it goes to the back
with its mark cleared (its second chance), any other is evicted.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from clipper_stream.errors import InvalidSetting

ENTRY_BYTES = 200
"""Memory that an entry takes: key object, ring slot, size, used mark (190 measured, CPython 3.11)."""


class CacheStore(Protocol):
    """Where the entries are kept: a RocksDB table in a router, a dictionary elsewhere."""

    def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """The value of each key, in order; None where there is none."""
        ...

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes]) -> None:
        """Put entries and delete keys in one write; no key is in both."""
        ...

    def items(self) -> Iterable[tuple[bytes, bytes]]:
        """All entries, in any order."""
        ...


class OutputCodec(Protocol):
    """Outputs to bytes and back, for the cache."""

    def dumps(self, output: Any, /) -> bytes: ...
    def loads(self, value: bytes, /) -> Any: ...


class ClockCache:
    """Remembers outputs by key until the budget is full, then forgets those not asked for lately.

    Args:
        store: Its entries become the ring; those beyond the budget are deleted at once.
        budget_bytes: Bound on the sum over entries of key, value and `ENTRY_BYTES`; 0 keeps nothing.

    Raises:
        InvalidSetting: the budget is negative.

    Source: Corbato, A Paging Experiment with the Multics System (1969); Clipper, section 4.2.
    """

    __slots__ = ("_budget_bytes", "_ring", "_size_bytes", "_sizes", "_store", "_used")

    def __init__(self, store: CacheStore, budget_bytes: int) -> None:
        if budget_bytes < 0:
            raise InvalidSetting(f"budget_bytes is {budget_bytes}: set it to 0 or more")
        self._store, self._budget_bytes = store, budget_bytes
        self._ring: deque[bytes] = deque()
        self._sizes: dict[bytes, int] = {}
        self._used: set[bytes] = set()
        self._size_bytes = 0
        self._rebuild()

    @property
    def size_bytes(self) -> int:
        """Sum over the entries, in bytes, that is held against the budget."""
        return self._size_bytes

    def __len__(self) -> int:
        """Number of entries."""
        return len(self._ring)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, in order; None where it is not known. Each hit is a use."""
        sizes = self._sizes
        known = [key for key in keys if key in sizes]
        if not known:
            return [None] * len(keys)
        found = dict(zip(known, self._store.get_many(known), strict=True))
        self._used.update(found)
        return [found.get(key) for key in keys]

    def put_many(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Remember values; of two with one key the later counts. A pair larger than the budget is not kept."""
        puts = dict(pairs)
        sizes, ring, most_bytes = self._sizes, self._ring, self._budget_bytes
        gone: list[bytes] = []
        for key, value in puts.items():
            size = len(key) + len(value) + ENTRY_BYTES
            if key in sizes or self._size_bytes + size > most_bytes:
                self._enter(key, len(value), gone)
            else:
                ring.append(key)
                sizes[key] = size
                self._size_bytes += size
        self._write([pair for pair in puts.items() if pair[0] in sizes], gone)

    def _rebuild(self) -> None:
        gone: list[bytes] = []
        for key, value in self._store.items():
            self._enter(key, len(value), gone)
            if key not in self._sizes:
                gone.append(key)  # larger than a budget that was lowered
        self._write([], gone)

    def _write(self, puts: list[tuple[bytes, bytes]], gone: list[bytes]) -> None:
        deletes = [key for key in dict.fromkeys(gone) if key not in self._sizes]
        if puts or deletes:
            self._store.write(puts, deletes)

    def _enter(self, key: bytes, value_bytes: int, gone: list[bytes]) -> None:
        """Make room, then place a new entry behind the hand: it cannot be evicted by its own arrival."""
        size = len(key) + value_bytes + ENTRY_BYTES
        before = self._sizes.get(key)
        if size > self._budget_bytes:
            self._remove(key, gone)
        elif before is None:
            self._evict(self._budget_bytes - size, gone)
            self._ring.append(key)
            self._sizes[key] = size
            self._size_bytes += size
        else:
            self._sizes[key] = size
            self._size_bytes += size - before
            self._evict(self._budget_bytes, gone)

    def _evict(self, most_bytes: int, gone: list[bytes]) -> None:
        """Turn the hand until the remaining entries take at most `most_bytes`."""
        while self._size_bytes > most_bytes:
            key = self._ring.popleft()
            if key in self._used:
                self._used.remove(key)
                self._ring.append(key)
            else:
                self._size_bytes -= self._sizes.pop(key)
                gone.append(key)

    def _remove(self, key: bytes, gone: list[bytes]) -> None:
        """Take an entry out wherever it stands; rare, since the output of a model version seldom changes its size."""
        if key in self._sizes:
            self._ring.remove(key)
            self._used.discard(key)
            self._size_bytes -= self._sizes.pop(key)
            gone.append(key)
