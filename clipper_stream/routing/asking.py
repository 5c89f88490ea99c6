"""Rows in flight: which request carries which row, and who waits for it.

Rules of this file:
- Identical rows for one deterministic model version are asked for once; the others wait for the first.
- A key is in flight no longer than the query that asked for it: at that query's deadline the others ask anew.
- A row of a request is answered once. Whatever comes again (a host that was restarted answers its request anew) is
  not counted.
- An output that is late still feeds the cache. So a request is remembered `FORGET_AFTER_S` beyond its last deadline,
  but of those that are overdue no more than `MAX_OVERDUE_ROWS` rows: hosts that are down cost no memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipper_stream.caching.coalescing import InFlight
from clipper_stream.deadlines import DeadlineQueue
from clipper_stream.routing.application import Candidate
from clipper_stream.routing.effects import Request
from clipper_stream.routing.framing import frames_of, stack
from clipper_stream.routing.pending import Pending, Slot

FORGET_AFTER_S = 10.0
MAX_OVERDUE_ROWS = 16_384
"""With some kilobytes a query these take tens of megabytes."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A row to ask for: whose it is, and under which key identical rows wait; None: nobody may share it."""

    slot: Slot
    key: bytes | None

    @property
    def superseded(self) -> bool:
        """Whether its query ran out of time, and others who waited for the row have asked anew."""
        return self.key is not None and self.key not in self.slot.pending.owned


@dataclass(slots=True)
class Frame:
    """A request that was sent; a row that was answered is None."""

    candidate: Candidate
    asks: list[Ask | None]
    unanswered: int


class Asking:
    """Builds requests, and finds the slots that an output belongs to."""

    def __init__(self) -> None:
        self._frames: dict[int, Frame] = {}
        self._in_time: DeadlineQueue[int] = DeadlineQueue()
        self._overdue: dict[int, float] = {}
        self._overdue_rows = 0
        self._in_flight: InFlight[bytes, Slot] = InFlight()
        self._number = 0

    def __len__(self) -> int:
        """Requests and keys in flight."""
        return len(self._frames) + len(self._in_flight)

    def join(self, key: bytes, slot: Slot) -> bool:
        """Wait for the row of this key; True when the caller is the first, and must ask."""
        first = self._in_flight.join(key, slot)
        if first:
            slot.pending.owned[key] = None
        return first

    def requests(self, candidate: Candidate, asks: Sequence[Ask]) -> list[Request]:
        """Requests for these rows, of one dtype and shape each, none too large."""
        slots = [ask.slot for ask in asks]
        return [self._request(candidate, [asks[index] for index in frame]) for frame in frames_of(slots)]

    def candidate(self, number: int) -> Candidate | None:
        """Whom the request asks; None when all of it was answered, or it was forgotten."""
        frame = self._frames.get(number)
        return None if frame is None else frame.candidate

    def answered(self, number: int, row: int) -> Ask | None:
        """A row of a request has come back; None when it had before, or never was one."""
        frame = self._frames.get(number)
        if frame is None or not 0 <= row < len(frame.asks) or (ask := frame.asks[row]) is None:
            return None
        frame.asks[row] = None
        frame.unanswered -= 1
        if number in self._overdue:
            self._overdue_rows -= 1
        if not frame.unanswered:
            self._drop(number)
        return ask

    def resolve(self, ask: Ask) -> list[Slot]:
        """Everybody who waits for this row; nobody does any more."""
        if ask.key is None:
            return [ask.slot]
        waiting = self._in_flight.resolve(ask.key)
        if waiting:
            waiting[0].pending.owned.pop(ask.key, None)  # who joined first has asked
        return waiting

    def inherit(self, ask: Ask) -> Slot | None:
        """The asker of this row, which was not sent yet, has its answer: who asks now; None when nobody waits."""
        key, pending = ask.key, ask.slot.pending
        if key is None or key not in pending.owned:
            return None
        del pending.owned[key]
        waiting = [slot for slot in self._in_flight.resolve(key) if slot.wanted]
        for slot in waiting:
            self.join(key, slot)
        return waiting[0] if waiting else None

    def abandon(self, pending: Pending) -> list[tuple[bytes, list[Slot]]]:
        """The query's time is over: by key, the others who wait for what it asked for, and still want it."""
        orphans = []
        for key in pending.owned:
            waiting = [slot for slot in self._in_flight.resolve(key) if slot.wanted]
            if waiting:
                orphans.append((key, waiting))
        pending.owned.clear()
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
        self._in_time, self._in_flight = DeadlineQueue(), InFlight()

    def _drop(self, number: int) -> None:
        del self._frames[number]
        self._in_time.discard(number)
        self._overdue.pop(number, None)

    def _request(self, candidate: Candidate, asks: list[Ask]) -> Request:
        self._number += 1
        slots = [ask.slot for ask in asks]
        deadlines = np.array([slot.pending.deadline_s for slot in slots], dtype=np.float64)
        self._frames[self._number] = Frame(candidate, list(asks), len(asks))
        self._in_time.push(float(deadlines.max()), self._number)
        return Request(candidate.ref, self._number, stack(slots), deadlines)
