"""Which deadlines have passed: a heap that forgets finished items without searching for them.

Rules of this file:
- An item is in the queue once; pushed again, it moves to the new deadline.
- Items that are discarded stay in the heap as dead entries, dropped when they reach the front. When they are more than
  the live ones the heap is built anew, so that memory follows the live items although most finish early.
"""

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

DEAD_ENTRIES = 64
"""Dead entries that are left alone whatever the number of live ones: a small heap is not worth building anew."""


class DeadlineQueue(Generic[T]):
    """Items by deadline, earliest first; equal deadlines in the order they were pushed.

    >>> queue = DeadlineQueue[str]()
    >>> queue.push(100.2, "slow")
    >>> queue.push(100.1, "fast")
    >>> queue.push(100.1, "answered in time")
    >>> queue.discard("answered in time")
    >>> queue.next_s
    100.1
    >>> queue.pop_due(now_s=100.1)
    ['fast']
    """

    __slots__ = ("_heap", "_live", "_pushed")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._live: dict[T, int] = {}
        self._pushed = 0

    def __len__(self) -> int:
        """Items that are neither due nor discarded."""
        return len(self._live)

    @property
    def next_s(self) -> float | None:
        """The earliest deadline, seconds since the epoch; None when the queue is empty."""
        heap, live = self._heap, self._live
        while heap and live.get(heap[0][2]) != heap[0][1]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def push(self, deadline_s: float, item: T) -> None:
        """Add the item, or move it.

        Args:
            deadline_s: Seconds since the epoch, not NaN. Without a deadline, do not push.
            item: Anything hashable, for example a query id.
        """
        self._pushed += 1
        self._live[item] = self._pushed
        heapq.heappush(self._heap, (deadline_s, self._pushed, item))
        self._purge()

    def discard(self, item: T) -> None:
        """Forget an item that is finished. No error when it is not there."""
        if self._live.pop(item, None) is not None:
            self._purge()

    def pop_due(self, now_s: float) -> list[T]:
        """Take out the items whose deadline is at `now_s` or before, earliest first."""
        heap, live, due = self._heap, self._live, list[T]()
        while heap and heap[0][0] <= now_s:
            _, number, item = heapq.heappop(heap)
            if live.get(item) == number:
                del live[item]
                due.append(item)
        return due

    def _purge(self) -> None:
        """Build the heap anew when it is mostly dead: a cost spread over the discards that made it so."""
        if len(self._heap) > 2 * len(self._live) + DEAD_ENTRIES:
            self._heap = [entry for entry in self._heap if self._live.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)
