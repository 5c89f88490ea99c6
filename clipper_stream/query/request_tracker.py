"""Rows in flight: which request carries which row, and who waits for it.

Rules of this file:
- Identical rows for one deterministic model version are asked for once; the others wait for the first.
- A key is in flight no longer than the query that asked for it: at that query's deadline the others ask anew.
- A row of a request is answered once. Whatever comes again (a host that was restarted answers its request anew) is
  not counted.
- An output that is late still feeds the cache. So a request is remembered `FORGET_AFTER_S` beyond its last deadline,
  but of those that are overdue no more than `MAX_OVERDUE_ROWS` rows: hosts that are down cost no memory.
- Everything is kept in columns, one entry a row: owner, place and key stand in lists of one length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clipper_stream.caching.keys import row_keys
from clipper_stream.caching.single_flight import SingleFlight
from clipper_stream.query.application import CandidateModel
from clipper_stream.query.deadlines import DeadlineQueue
from clipper_stream.query.effects import OutputPiece, Request
from clipper_stream.query.frames import frames_of
from clipper_stream.query.in_flight import OPEN, Failure, InFlightQuery

FORGET_AFTER_S = 10.0
MAX_OVERDUE_ROWS = 16_384
"""With some kilobytes a query these take tens of megabytes."""

Waiter = tuple[InFlightQuery, int]
"""A query and its place."""


@dataclass(slots=True)
class RowBatch:
    """Rows to ask one model version for: whose each is, for which place, and under which key identical rows wait.

    Attributes:
        candidate: The model version.
        owners: The queries.
        places: Of the rows in their queries.
        keys: None where nobody may share the row.
    """

    candidate: CandidateModel
    owners: list[InFlightQuery] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)

    def add(self, owner: InFlightQuery, place: int, key: bytes | None) -> None:
        """One more."""
        self.owners.append(owner)
        self.places.append(place)
        self.keys.append(key)

    def some(self, indices: Sequence[int]) -> "RowBatch":
        """These of them."""
        return RowBatch(
            self.candidate,
            [self.owners[index] for index in indices],
            [self.places[index] for index in indices],
            [self.keys[index] for index in indices],
        )

    def extend(self, more: "RowBatch") -> None:
        """These too."""
        self.owners += more.owners
        self.places += more.places
        self.keys += more.keys


MOST_RETURN_RATIO = 0.25
"""Of the time that a row has left when it is asked: a wrong measurement may cost no more."""


@dataclass(slots=True)
class Frame:
    """A request that was sent; the owner of a row that was answered is None."""

    candidate: CandidateModel
    owners: list[InFlightQuery | None]
    places: list[int]
    keys: list[bytes | None]
    unanswered: int


@dataclass(slots=True)
class Arrived:
    """What came of rows of one request, each for the first time.

    Attributes:
        asks: The rows that have an output.
        outputs: One each.
        failed: The rows that have none: owner, place, key and why.
    """

    asks: RowBatch
    outputs: Sequence[Any]
    failed: list[tuple[InFlightQuery, int, bytes | None, Failure]] = field(default_factory=list)


class RequestTracker:
    """Builds requests, and finds the places that an output belongs to."""

    def __init__(self) -> None:
        self._frames: dict[int, Frame] = {}
        self._in_time: DeadlineQueue[int] = DeadlineQueue()
        self._overdue: dict[int, float] = {}
        self._overdue_rows = 0
        self._in_flight: SingleFlight[bytes, Waiter] = SingleFlight()
        self._number = 0

    def __len__(self) -> int:
        """Requests and keys in flight."""
        return len(self._frames) + len(self._in_flight)

    def join(self, key: bytes, owner: InFlightQuery, place: int) -> bool:
        """Wait for the row of this key; True when the caller is the first, and must ask."""
        return self._in_flight.join(key, (owner, place))

    def requests(self, asks: RowBatch, now_s: float = 0.0, return_s: float = 0.0) -> list[Request]:
        """Requests for these rows, of one dtype and shape each, none too large.

        Args:
            asks: The rows.
            now_s: Seconds since the epoch.
            return_s: How long outputs are on their way back, in seconds: so much earlier they must leave the host, but
                no earlier than after `1 - MOST_RETURN_RATIO` of the time that is left.
        """
        frames = frames_of(asks.owners, asks.places)
        return [self._request(asks, frame, rows, now_s, return_s) for frame, rows in frames]

    def take(self, piece: OutputPiece) -> Arrived | None:
        """Which rows a piece answers; None when it is of a request that was answered wholly, or forgotten."""
        frame = self._frames.get(piece.frame)
        if frame is None:
            return None
        first, last = piece.row0, piece.row0 + len(piece.outputs)
        owners = frame.owners[first:last] if first >= 0 else []
        if piece.failed or len(owners) < last - first or None in owners:
            return self._take_some(frame, piece)
        frame.owners[first:last] = [None] * len(owners)
        self._answer(piece.frame, frame, len(owners))
        asks = RowBatch(frame.candidate, owners, frame.places[first:last], frame.keys[first:last])  # type: ignore[arg-type]
        return Arrived(asks, piece.outputs)

    def resolve(self, key: bytes) -> list[Waiter]:
        """Everybody who waits for the row of this key; nobody does any more."""
        return self._in_flight.resolve(key)

    def superseded(self, owner: InFlightQuery, key: bytes | None) -> bool:
        """Whether others who waited for the row have asked anew, because this query ran out of time."""
        return key is not None and not self._owns(owner, key)

    def inherit(self, owner: InFlightQuery, key: bytes | None) -> Waiter | None:
        """The asker of this row, which was not sent yet, has its answer: who asks now; None when nobody waits."""
        if key is None or not self._owns(owner, key):
            return None
        waiting = _wanted(self._in_flight.resolve(key))
        for heir, place in waiting:
            self.join(key, heir, place)
        return waiting[0] if waiting else None

    def abandon(self, pending: InFlightQuery) -> list[tuple[bytes, list[Waiter]]]:
        """The query's time is over: by key, the others who wait for what it asked for, and still want it."""
        orphans = []
        for key in _open_keys(pending):
            waiting = self._in_flight.resolve(key) if self._owns(pending, key) else []
            waiting = [(owner, place) for owner, place in waiting if owner is not pending and owner.wants(place)]
            if waiting:
                orphans.append((key, waiting))
        return orphans

    def forget(self, now_s: float) -> list[int]:
        """Drop requests whose answer will not come; their numbers."""
        for number in self._in_time.pop_due(now_s):
            self._overdue[number] = now_s + FORGET_AFTER_S
            self._overdue_rows += self._frames[number].unanswered
        forgotten: list[int] = []
        for number, until_s in self._overdue.items():
            if until_s > now_s and self._overdue_rows <= MAX_OVERDUE_ROWS:
                break
            self._overdue_rows -= self._frames[number].unanswered
            forgotten.append(number)
        for number in forgotten:
            self._drop(number)
        return forgotten

    def clear(self) -> None:
        """Drop everything; numbers go on, so that late outputs find nothing."""
        self._frames.clear()
        self._overdue.clear()
        self._overdue_rows = 0
        self._in_time, self._in_flight = DeadlineQueue(), SingleFlight()

    def _owns(self, owner: InFlightQuery, key: bytes) -> bool:
        first = self._in_flight.first(key)
        return first is not None and first[0] is owner

    def _take_some(self, frame: Frame, piece: OutputPiece) -> Arrived:
        outputs: list[Any] = []
        arrived = Arrived(RowBatch(frame.candidate), outputs)
        before = frame.unanswered
        for row, output in enumerate(piece.outputs, piece.row0):
            owner = frame.owners[row] if 0 <= row < len(frame.owners) else None
            if owner is None:
                continue
            frame.owners[row] = None
            failure = piece.failed.get(row)
            if failure is not None:
                arrived.failed.append((owner, frame.places[row], frame.keys[row], failure))
            else:
                arrived.asks.add(owner, frame.places[row], frame.keys[row])
                outputs.append(output)
            before -= 1
        self._answer(piece.frame, frame, frame.unanswered - before)
        return arrived

    def _answer(self, number: int, frame: Frame, rows: int) -> None:
        frame.unanswered -= rows
        if number in self._overdue:
            self._overdue_rows -= rows
        if not frame.unanswered:
            self._drop(number)

    def _drop(self, number: int) -> None:
        del self._frames[number]
        self._in_time.discard(number)
        self._overdue.pop(number, None)

    def _request(self, asks: RowBatch, frame: Sequence[int], rows: Any, now_s: float, return_s: float) -> Request:
        self._number += 1
        asked = asks if len(frame) == len(asks.owners) else asks.some(frame)
        deadlines = np.array([owner.deadline_s for owner in asked.owners], dtype=np.float64)
        self._frames[self._number] = Frame(asks.candidate, [*asked.owners], asked.places, asked.keys, len(frame))
        self._in_time.push(float(deadlines.max()), self._number)
        if return_s:
            deadlines -= np.clip(return_s, 0.0, np.maximum(0.0, MOST_RETURN_RATIO * (deadlines - now_s)))
        return Request(asks.candidate.ref, self._number, rows, deadlines)


def _open_keys(pending: InFlightQuery) -> list[bytes]:
    """Under which keys a query still waits; its rows are hashed anew, because few queries run out of time."""
    count, keys = pending.count, []
    for model, ref in enumerate(pending.decision.models):
        candidate = pending.application.by_ref[ref]
        rows = [row for row in range(count) if pending.outputs[model * count + row] is OPEN]
        if candidate.deterministic and rows:
            keys += row_keys(candidate.digest, [pending.block[pending.first + row] for row in rows])
    return keys


def _wanted(waiting: list[Waiter]) -> list[Waiter]:
    return [(owner, place) for owner, place in waiting if owner.wants(place)]
