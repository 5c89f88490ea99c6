"""Which deadlines have passed, and which cannot be met: a heap of points in time, each with the items due then.

Rules of this file:
- An item is in the queue once; pushed again, it moves to the new deadline.
- Kafka's timestamps are whole milliseconds, so many items share a deadline: the heap has one entry for all of them, and
  an item costs a dictionary entry.
- A deadline whose items have all been discarded stays in the heap as a dead entry. When these are more than the live
  ones the heap is built anew, so that memory follows the live items although most finish early.
"""

import heapq
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

DEAD_ENTRIES = 64
"""Dead entries that are left alone whatever the number of live ones: a small heap is not worth building anew."""

TRIPS_MEMORY_S = 1.0


class DeadlineQueue(Generic[T]):
    """Items by deadline, seconds since the epoch, earliest first; equal deadlines in the order they were pushed."""

    __slots__ = ("_deadlines", "_heap", "_items")

    def __init__(self) -> None:
        self._heap: list[float] = []
        self._items: dict[float, dict[T, None]] = {}
        self._deadlines: dict[T, float] = {}

    def __len__(self) -> int:
        return len(self._deadlines)

    @property
    def next_s(self) -> float | None:
        """The earliest deadline, seconds since the epoch; None when the queue is empty."""
        heap, items = self._heap, self._items
        while heap and heap[0] not in items:
            heapq.heappop(heap)
        return heap[0] if heap else None

    def push(self, deadline_s: float, item: T) -> None:
        """Add an item, or move it to another deadline."""
        if item in self._deadlines:
            self.discard(item)
        self._deadlines[item] = deadline_s
        due = self._items.get(deadline_s)
        if due is None:
            self._items[deadline_s] = {item: None}
            heapq.heappush(self._heap, deadline_s)
        else:
            due[item] = None

    def discard(self, item: T) -> None:
        """Remove an item; no error when it is not in the queue."""
        deadline_s = self._deadlines.pop(item, None)
        if deadline_s is None:
            return
        due = self._items[deadline_s]
        del due[item]
        if not due:
            del self._items[deadline_s]
            self._purge()

    def pop_due(self, now_s: float) -> list[T]:
        heap, due = self._heap, list[T]()
        while heap and heap[0] <= now_s:
            due += self._items.pop(heapq.heappop(heap), ())
        for item in due:
            del self._deadlines[item]
        return due

    def _purge(self) -> None:
        """Build the heap anew when it is mostly dead: a cost spread over the discards that made it so."""
        if len(self._heap) > 2 * len(self._items) + DEAD_ENTRIES:
            self._heap = list(self._items)
            heapq.heapify(self._heap)


class ShortestTrips:
    """The least time from a decision to an output of a model version, in the last second or two.

    It says what cannot be in time. When nothing was asked for so long, it says nothing, so that it is tried again.
    """

    def __init__(self) -> None:
        self._since_s = 0.0
        self._lately: dict[str, float] = {}
        self._before: dict[str, float] = {}

    def observe(self, ref: str, trip_s: float, now_s: float) -> None:
        self._turn(now_s)
        self._lately[ref] = min(trip_s, self._lately.get(ref, trip_s))

    def least_s(self, refs: Iterable[str], now_s: float) -> float:
        """The least time of any of these versions, in seconds; 0.0 where one's is not known."""
        self._turn(now_s)
        noted = (self._lately, self._before)
        return min((min((trips[ref] for trips in noted if ref in trips), default=0.0) for ref in refs), default=0.0)

    def _turn(self, now_s: float) -> None:
        age_s = now_s - self._since_s
        if not 0 <= age_s < TRIPS_MEMORY_S:
            self._before = self._lately if 0 <= age_s < 2 * TRIPS_MEMORY_S else {}
            self._since_s, self._lately = now_s, {}
