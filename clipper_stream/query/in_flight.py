"""What a router has in flight: queries by id, how many may wait for each application, and what is due when.

Rules of this file:
- One application whose models hang must not take the room of the others. Alone it may take all there is, because then
  nobody else is kept waiting when the router stops reading.
- A query that is read again while it is in flight joins its first record.
- An item is due once; pushed again, it moves to the new deadline. Kafka's timestamps are whole milliseconds, so many
  items share a deadline: the heap has one entry for all of them, and an item costs a dictionary entry.
- A deadline whose items have all been discarded stays in the heap as a dead entry. When these are more than the live
  ones the heap is built anew, so that memory follows the live items although most finish early.
"""

import heapq
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

from clipper_stream.query.batch import QueryBatch, QueryState, set_state

T = TypeVar("T", bound=Hashable)

COMMON_RATIO = 0.75
"""Of all places: taken by whoever comes first. The rest is for applications that have less than an even share."""
MOST_DEFERRED = 1_000_000
"""Some hundred bytes each; beyond it a backlog of one application holds up the others."""
UNBOUNDED = 1 << 62


class Admission:
    """Counts the queries and audits that wait for models, by application, and bounds them.

    Attributes:
        most: How many wait at a time.
        shared: Whether there are several applications.
        deferred: How many queries wait to be read again.

    >>> admission = Admission(8)
    >>> admission.shared = True
    >>> admission.enter("hangs", admission.room("hangs")); admission.room("hangs"), admission.room("well")
    (0, 4)
    """

    def __init__(self, most: int = UNBOUNDED) -> None:
        self.most, self.shared, self.deferred = most, False, 0
        self._waiting: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        return self._waiting.total()

    @property
    def is_full(self) -> bool:
        """Whether nothing more is to be read; where there are several applications each has a bound of its own."""
        return self.waiting >= (2 if self.shared else 1) * self.most or self.deferred >= MOST_DEFERRED

    def room(self, application: str) -> int:
        """How many more queries of an application may wait."""
        if not self.shared:
            return UNBOUNDED
        own = self._waiting.get(application, 0)
        even = self.most // max(2, len(self._waiting) + (own == 0))
        return max(0, int(COMMON_RATIO * self.most) - self.waiting, even - own)

    def enter(self, application: str, count: int) -> None:
        """Count queries that wait from now on; an application of which none does has no share."""
        if count:
            self._waiting[application] += count

    def leave(self, application: str, count: int = 1) -> None:
        self._waiting[application] -= count
        if not self._waiting[application]:
            del self._waiting[application]

    def clear(self) -> None:
        self._waiting.clear()


# --- what is due ------------------------------------------------------------------------------------------------------
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


# --- queries ----------------------------------------------------------------------------------------------------------
Repetition = tuple[QueryBatch, int]
"""A record of a query that was read again, which gets the same prediction."""
BatchesById = dict[str, QueryBatch]


class QueriesInFlight:
    """Queries by partition, application and id, each with the batch that it is in.

    Attributes:
        repeats: Number of records of queries that were read again.
    """

    def __init__(self) -> None:
        self._batches: dict[int, dict[str, BatchesById]] = {}
        self._again: dict[tuple[int, str, str], list[Repetition]] = {}
        self.repeats = 0

    def __len__(self) -> int:
        return self.repeats + sum(len(own) for applications in self._batches.values() for own in applications.values())

    def has_id(self, partition: int, query_id: str) -> bool:
        return any(query_id in own for own in self._batches.get(partition, {}).values())

    def batches(self) -> set[QueryBatch]:
        by_id = (own for applications in self._batches.values() for own in applications.values())
        return {batch for own in by_id for batch in own.values()}

    def admit(self, batch: QueryBatch, known: Collection[int]) -> None:
        """Take in the queries that are neither in flight nor `known`: the batch's `new` ones."""
        applications, ids = self._batches.setdefault(batch.partition, {}), batch.ids
        own = applications.setdefault(batch.application, {})
        if not known and own.keys().isdisjoint(ids) and (len(ids) == 1 or len(set(ids)) == len(ids)):
            own.update(dict.fromkeys(ids, batch))
            batch.new = range(len(ids))
        else:
            batch.new = [query for query in range(len(ids)) if self._admit(batch, query, own, known=query in known)]
        if len(applications) > 1:
            for other in applications.values():
                for query_id in (other.keys() & ids) if other is not own else ():
                    other[query_id].shares_id = batch.shares_id = True
        if not own:
            del applications[batch.application]

    def _admit(self, batch: QueryBatch, query: int, own: BatchesById, *, known: bool) -> bool:
        query_id = batch.ids[query]
        if query_id in own:
            self._again.setdefault((batch.partition, batch.application, query_id), []).append((batch, query))
            self.repeats += 1
            set_state(batch.states, (query,), QueryState.REPEATED)
        elif known:
            set_state(batch.states, (query,), QueryState.KNOWN)
        else:
            own[query_id] = batch
            return True
        return False

    def remove(self, batch: QueryBatch, queries: Iterable[int]) -> Sequence[Repetition]:
        """End queries whose predictions are recorded; the records of them that were read meanwhile."""
        partition, application, ids, again = batch.partition, batch.application, batch.ids, list[Repetition]()
        own = self._batches.get(partition, {}).get(application, {})
        for query in queries:
            own.pop(ids[query], None)
            if self._again:
                again += self._again.pop((partition, application, ids[query]), ())
        if not own:
            self._batches.get(partition, {}).pop(application, None)
        self.repeats -= len(again)
        return again
