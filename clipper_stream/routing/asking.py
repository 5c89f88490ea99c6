"""Rows in flight: which request carries which row, and who waits for it.

Rules of this file:
- Identical rows for one deterministic model version are asked for once; the others wait for the first.
- A key is in flight no longer than the query that asked for it: at that query's deadline the others ask anew.
- A request is forgotten `FORGET_AFTER_S` after its last deadline, whether or not it was ever answered.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipper_stream.caching.coalescing import InFlight
from clipper_stream.routing.application import Candidate
from clipper_stream.routing.effects import Request
from clipper_stream.routing.pending import OPEN, Pending

MAX_FRAME_ROWS = 1024
MAX_FRAME_BYTES = 512 * 1024
FORGET_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class Slot:
    """One row of one model of one query."""

    pending: Pending
    model: int
    row: int

    @property
    def wanted(self) -> bool:
        """Whether an output still changes the answer."""
        return not self.pending.answered and self.pending.outputs[self.model][self.row] is OPEN


@dataclass(frozen=True, slots=True)
class Ask:
    """A row to ask for: whose it is, and under which key identical rows wait; None: nobody may share it."""

    slot: Slot
    key: bytes | None


@dataclass(slots=True)
class Frame:
    """A request that was sent."""

    candidate: Candidate
    asks: list[Ask]
    unanswered: int


class Asking:
    """Builds requests, and finds the slots that an output belongs to."""

    def __init__(self) -> None:
        self._frames: dict[int, Frame] = {}
        self._forget: deque[tuple[float, int]] = deque()
        self._in_flight: InFlight[bytes, Slot] = InFlight()
        self._number = 0

    def __len__(self) -> int:
        """Requests in flight."""
        return len(self._frames)

    def join(self, key: bytes, slot: Slot) -> bool:
        """Wait for the row of this key; True when the caller is the first, and must ask."""
        first = self._in_flight.join(key, slot)
        if first:
            slot.pending.owned[key] = None
        return first

    def requests(self, candidate: Candidate, asks: Sequence[Ask]) -> list[Request]:
        """Requests for these rows, of one dtype and shape each, none too large."""
        built: list[Request] = []
        for group in _same_shape(asks):
            rows_a_frame = _rows_a_frame(group)
            built += [
                self._request(candidate, group[at : at + rows_a_frame]) for at in range(0, len(group), rows_a_frame)
            ]
        return built

    def frame(self, number: int) -> Frame | None:
        """The request of this number, None when it was answered, or forgotten."""
        return self._frames.get(number)

    def answered(self, number: int, rows: int) -> None:
        """So many more rows of the request have come back."""
        frame = self._frames[number]
        frame.unanswered -= rows
        if frame.unanswered <= 0:
            del self._frames[number]

    def resolve(self, ask: Ask) -> list[Slot]:
        """Everybody who waits for this row; nobody does any more."""
        if ask.key is None:
            return [ask.slot]
        ask.slot.pending.owned.pop(ask.key, None)
        return self._in_flight.resolve(ask.key)

    def abandon(self, pending: Pending) -> list[tuple[bytes, list[Slot]]]:
        """The query's time is over: by key, the others who wait for what it asked for, and still want it."""
        orphans = []
        for key in pending.owned:
            waiting = [slot for slot in self._in_flight.resolve(key) if slot.wanted]
            if waiting:
                orphans.append((key, waiting))
        pending.owned.clear()
        return orphans

    def forget(self, now_s: float) -> None:
        """Drop requests whose answer will not come."""
        while self._forget and self._forget[0][0] <= now_s:
            self._frames.pop(self._forget.popleft()[1], None)

    def clear(self) -> None:
        """Drop everything."""
        self._frames.clear()
        self._forget.clear()
        self._in_flight = InFlight()

    def _request(self, candidate: Candidate, asks: Sequence[Ask]) -> Request:
        self._number += 1
        deadlines = np.array([ask.slot.pending.deadline_s for ask in asks], dtype=np.float64)
        self._frames[self._number] = Frame(candidate, list(asks), len(asks))
        self._forget.append((float(deadlines.max()) + FORGET_AFTER_S, self._number))
        return Request(candidate.ref, self._number, _stack(asks), deadlines)


def _row(ask: Ask) -> Any:
    return ask.slot.pending.rows[ask.slot.row]


def _same_shape(asks: Sequence[Ask]) -> Iterable[list[Ask]]:
    groups: dict[Any, list[Ask]] = {}
    for ask in asks:
        rows = ask.slot.pending.rows
        shape = (rows.dtype.str, rows.shape[1:]) if isinstance(rows, np.ndarray) else None
        groups.setdefault(shape, []).append(ask)
    return groups.values()


def _rows_a_frame(asks: Sequence[Ask]) -> int:
    row = _row(asks[0])
    if isinstance(row, np.ndarray):
        size = row.nbytes
    else:
        size = max(len(one) if isinstance(one := _row(ask), str | bytes) else 1024 for ask in asks)
    return max(1, min(MAX_FRAME_ROWS, MAX_FRAME_BYTES // max(1, size)))


def _stack(asks: Sequence[Ask]) -> Any:
    rows = [_row(ask) for ask in asks]
    return np.stack(rows) if isinstance(asks[0].slot.pending.rows, np.ndarray) else rows
