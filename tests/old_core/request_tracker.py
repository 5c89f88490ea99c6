"""Requests and the rows in flight: which request carries which row, and which queries wait for it.

Rules of this file:
- Identical rows for one deterministic model version are asked for once; the others wait for the first.
- A key is in flight no longer than the query that asked for it: at that query's deadline the others ask anew.
- A request is known by a token that nobody can guess: a host of another model, which has not read it, cannot answer it.
- A row of a request is answered once. Whatever comes again (a host that was restarted answers its request anew) is
  not counted.
- An output that is late still feeds the cache. So a request is remembered `FORGET_AFTER_S` beyond its last deadline,
  but of those that are overdue no more than `MAX_OVERDUE_ROWS` rows: hosts that are down cost no memory.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from secrets import randbits
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from clipper_stream.query.deadlines import DeadlineQueue
from old_core.in_flight import Failure, OpenRow
from old_core.row_batch import Owner, RowBatch

FRAME_TOKEN_BITS = 64
"""What an integer has on the wire. Of 10,000 requests in flight, 100,000 guesses a second hit one in 580 years."""
FORGET_AFTER_S = 10.0
MAX_OVERDUE_ROWS = 16_384
"""With some kilobytes a query these take tens of megabytes."""
TRIPS_MEMORY_S = 1.0
MOST_RETURN_RATIO = 0.25
"""Of the time that a row has left when it is asked: a wrong measurement may cost no more."""

K = TypeVar("K", bound=Hashable)
W = TypeVar("W")
Waiter = tuple[Owner, int]
"""A query or a block of them, and the slot."""


@dataclass(frozen=True, slots=True)
class Request:
    """Rows for one model version, of one dtype and shape.

    Attributes:
        frame: Token of the request.
        rows: The inputs: a matrix with one row an input; or a list of texts, bytes or JSON values.
        deadlines_s: When each output is of no more use, seconds since the epoch; `inf` for never.
        asked: Whose the rows are; None of a request that was made for a test.
        traced: For whoever carries the request out: notes about rows of sampled queries.
    """

    ref: str
    frame: int
    rows: NDArray[Any] | list[Any]
    deadlines_s: NDArray[np.float64]
    asked: RowBatch | None = None
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


@dataclass(slots=True)
class _Sent:
    """A request that was sent; the owner of a row that was answered is None."""

    rows: RowBatch
    unanswered: int


class SingleFlight(Generic[K, W]):
    """Identical rows in flight, by key: asked once, answered to everybody who waits.

    The caller who gets True from `join` asks the model, and resolves the key when it answers, fails or is given up:
    memory is bounded by the rows that wait. A waiter joins a key at most once before that; waiters are not compared.

    Source: the Go package golang.org/x/sync/singleflight.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[K, list[W]] = {}

    def __len__(self) -> int:
        """Number of keys in flight."""
        return len(self._waiting)

    def join(self, key: K, waiter: W) -> bool:
        """Wait for the key; True when nobody did before: the caller asks for it now."""
        waiters = self._waiting.get(key)
        if waiters is None:
            self._waiting[key] = [waiter]
            return True
        waiters.append(waiter)
        return False

    def join_all(self, keys: Sequence[K], waiters: Iterable[W]) -> bool:
        """Wait for each key; False, and nobody does, where somebody waits already, or a key comes twice."""
        if len(set(keys)) < len(keys) or not self._waiting.keys().isdisjoint(keys):
            return False
        self._waiting.update(zip(keys, ([waiter] for waiter in waiters), strict=True))
        return True

    def first(self, key: K) -> W | None:
        """The waiter that joined first; None when nobody waits."""
        waiters = self._waiting.get(key)
        return waiters[0] if waiters else None

    def resolve(self, key: K) -> list[W]:
        """All waiters of the key, in the order they joined; the key is in flight no longer."""
        return self._waiting.pop(key, [])


class ShortestTrips:
    """The least time from a decision to an output of a model version, in the last second or two.

    It says what cannot be in time. When nothing was asked for so long, it says nothing, so that it is tried again.
    """

    def __init__(self) -> None:
        self._since_s = 0.0
        self._lately: dict[str, float] = {}
        self._before: dict[str, float] = {}

    def observe(self, ref: str, trip_s: float, now_s: float) -> None:
        """Note a time from a decision to an output."""
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


class RequestTracker:
    """Builds requests, finds the queries that an output is for, and asks anew what others gave up.

    Attributes:
        flight: The slots that wait for each row, by cache key; the first of them asks.
    """

    def __init__(self) -> None:
        self._sent: dict[int, _Sent] = {}
        self._in_time: DeadlineQueue[int] = DeadlineQueue()
        self._overdue: dict[int, float] = {}
        self._overdue_rows = 0
        self.flight: SingleFlight[bytes, Waiter] = SingleFlight()
        self._again: dict[str, RowBatch] = {}

    def __len__(self) -> int:
        """Number of requests and keys in flight."""
        return len(self._sent) + len(self.flight)

    # --- asking ---------------------------------------------------------------------------------------------------
    def requests(self, rows: RowBatch, now_s: float = 0.0, return_s: float = 0.0) -> Iterator[Request]:
        """Requests for these rows, of one dtype and shape each, none too large; the rows are the tracker's from now on.

        Outputs are `return_s` seconds on their way back: so much earlier they must leave the host, but no earlier than
        after `1 - MOST_RETURN_RATIO` of the time that is left.
        """
        count = len(rows.owners)
        for indices, inputs in rows.frames():
            sent = rows if len(indices) == count else rows.at(indices)
            frame = randbits(FRAME_TOKEN_BITS)
            deadlines = np.array(sent.deadlines_s(), dtype=np.float64)
            self._sent[frame] = _Sent(sent, len(indices))
            self._in_time.push(float(deadlines.max()), frame)
            if return_s:
                deadlines -= np.clip(return_s, 0.0, np.maximum(0.0, MOST_RETURN_RATIO * (deadlines - now_s)))
            yield Request(rows.ref, frame, inputs, deadlines, sent)

    def rows_to_ask_again(self) -> Iterable[RowBatch]:
        """Rows whose asker ran out of time since the last call; without those that nobody waits for any more."""
        wanted: dict[str, RowBatch] = {}
        again, self._again = self._again, {}
        for ref, rows in again.items():
            for owner, slot, key in zip(rows.owners, rows.slots, rows.keys, strict=True):
                heir = (owner, slot) if owner.wants(slot) else self._inherit((owner, slot), key)
                if heir is not None:
                    wanted.setdefault(ref, RowBatch(ref)).add(*heir, key)
        return wanted.values()

    def abandon(self, owner: Owner, rows: Iterable[OpenRow], now_s: float) -> None:
        """Give up open rows of an owner at their deadline: others that wait for them ask anew."""
        for slot, ref, key in rows:
            if self._is_asker((owner, slot), key):
                waiting = [waiter for waiter in self.flight.resolve(key) if waiter != (owner, slot)]
                self._ask_again(ref, key, waiting, now_s)

    # --- arriving -------------------------------------------------------------------------------------------------
    def take(self, piece: OutputPiece) -> RowBatch | None:
        """The rows that a piece answers, each for the first time, with their outputs.

        None when the piece is of a request that was answered wholly, or forgotten.
        """
        sent = self._sent.get(piece.frame)
        if sent is None:
            return None
        rows, first, last = sent.rows, piece.row0, piece.row0 + len(piece.outputs)
        owners = rows.owners[first:last] if first >= 0 else []
        if piece.failures or len(owners) < last - first or None in owners:
            arrived = _first_answers(rows, piece)
        else:
            rows.owners[first:last] = [None] * len(owners)  # type: ignore[list-item]
            arrived = RowBatch(rows.ref, owners, rows.slots[first:last], rows.keys[first:last], piece.outputs)
        self._count_answered(piece.frame, sent, len(arrived.owners))
        return arrived

    def failed(
        self, ref: str, owner: Owner, slot: int, key: bytes | None, failure: Failure, now_s: float
    ) -> Sequence[Waiter]:
        """The slots that a failed row concerns: an error concerns all who wait for the row.

        Lateness is the asker's own, and the others ask anew. Where they have done so already, because the asker ran out
        of time, it is nobody's.
        """
        if key is None:
            return ((owner, slot),)
        if failure.reason != "late":
            return self.flight.resolve(key)
        if not self._is_asker((owner, slot), key):
            return ()
        others = [waiter for waiter in self.flight.resolve(key) if waiter != (owner, slot)]
        self._ask_again(ref, key, others, now_s)
        return ((owner, slot),)

    # --- forgetting -----------------------------------------------------------------------------------------------
    def forget(self, now_s: float) -> list[int]:
        """Drop requests whose answer is not awaited any more, and return their tokens."""
        for frame in self._in_time.pop_due(now_s):
            self._overdue[frame] = now_s + FORGET_AFTER_S
            self._overdue_rows += self._sent[frame].unanswered
        forgotten: list[int] = []
        for frame, until_s in self._overdue.items():
            if until_s > now_s and self._overdue_rows <= MAX_OVERDUE_ROWS:
                break
            self._overdue_rows -= self._sent[frame].unanswered
            forgotten.append(frame)
        for frame in forgotten:
            self._drop(frame)
        return forgotten

    def clear(self) -> None:
        """Drop everything; late outputs find nothing."""
        self._sent.clear()
        self._overdue.clear()
        self._overdue_rows = 0
        self._in_time, self.flight, self._again = DeadlineQueue(), SingleFlight(), {}

    def _ask_again(self, ref: str, key: bytes, waiting: Iterable[Waiter], now_s: float) -> None:
        for owner, slot in waiting:
            in_time = owner.wants(slot) and owner.due_s(slot) > now_s
            if in_time and self.flight.join(key, (owner, slot)):
                self._again.setdefault(ref, RowBatch(ref)).add(owner, slot, key)

    def _inherit(self, asker: Waiter, key: bytes | None) -> Waiter | None:
        """The new asker of a row that was not sent yet and whose asker has its answer; None when nobody waits."""
        if key is None or not self._is_asker(asker, key):
            return None
        waiting = [(heir, slot) for heir, slot in self.flight.resolve(key) if heir.wants(slot)]
        for heir, slot in waiting:
            self.flight.join(key, (heir, slot))
        return waiting[0] if waiting else None

    def _is_asker(self, waiter: Waiter, key: bytes) -> bool:
        return self.flight.first(key) == waiter

    def _count_answered(self, frame: int, sent: _Sent, rows: int) -> None:
        sent.unanswered -= rows
        if frame in self._overdue:
            self._overdue_rows -= rows
        if not sent.unanswered:
            self._drop(frame)

    def _drop(self, frame: int) -> None:
        del self._sent[frame]
        self._in_time.discard(frame)
        self._overdue.pop(frame, None)


def _first_answers(rows: RowBatch, piece: OutputPiece) -> RowBatch:
    """The rows of the piece that were not answered before; from now on they are."""
    outputs: list[Any] = []
    arrived = RowBatch(rows.ref, outputs=outputs)
    for row, output in enumerate(piece.outputs, piece.row0):
        owner = rows.owners[row] if 0 <= row < len(rows.owners) else None
        if owner is not None:
            rows.owners[row] = None  # type: ignore[call-overload]
            arrived.add(owner, rows.slots[row], rows.keys[row])
            outputs.append(piece.failures.get(row, output))
    return arrived
