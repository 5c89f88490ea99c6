"""When a batch goes, and which rows are in it (Clipper, section 4.3.2, delayed batching).

Rules of this file:
- First come, first served within a shape; among shapes that may go, the one whose oldest row came first.
- A batch has rows of one shape, at most `limit_rows` of them, and none whose deadline has passed.
- Rows wait at most `max_delay_s`, counted from the oldest, for a full batch. One row that cannot afford the wait
  (its deadline would pass meanwhile) makes the batch go at once.
- Every row that was added comes out exactly once, in a batch or as late. At its deadline a row is late; after a long
  wait it is when its answer could not come in time any more, because first come, first served would spend a model that
  has too much to do on answers that nobody waits for.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from clipper_stream.errors import InvalidSetting

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken(Generic[T]):
    """The next batch, the rows that are late, and when to look again.

    Attributes:
        batch: Rows to send together, oldest first; empty: nothing may go yet.
        late: Rows whose deadline has passed: answer them as late.
        wake_at_s: Take again at this time even if no row is added; not after `now_s` when another batch may go
            already; None when no row waits.
    """

    batch: list[T]
    late: list[T]
    wake_at_s: float | None


@dataclass(slots=True)
class _Lane(Generic[T]):
    """The waiting rows of one shape: (number, came_s, deadline_s, item), and how many of them cannot wait."""

    rows: deque[tuple[int, float, float, T]] = field(default_factory=deque)
    urgent: int = 0


class Window(Generic[T]):
    """Collects rows until a batch may go.

    Args:
        max_delay_s: Longest wait in seconds for a batch to fill, from its oldest row on; 0: never wait.

    Raises:
        InvalidSetting: the delay is negative.

    >>> window = Window[str](max_delay_s=0.002)
    >>> window.add("a", shape=(64,), deadline_s=100.1, now_s=100.0)
    >>> window.take(now_s=100.0, limit_rows=2)
    Taken(batch=[], late=[], wake_at_s=100.002)
    >>> window.add("b", shape=(64,), deadline_s=100.1, now_s=100.001)
    >>> window.take(now_s=100.001, limit_rows=2)
    Taken(batch=['a', 'b'], late=[], wake_at_s=None)

    Source: Clipper, section 4.3.2.
    """

    __slots__ = ("_came", "_lanes", "_max_delay_s", "_waiting")

    def __init__(self, max_delay_s: float = 0.0) -> None:
        if not max_delay_s >= 0.0:
            raise InvalidSetting(f"max_delay_s is {max_delay_s}, a wait is at least 0 seconds: set it to 0 or more")
        self._max_delay_s = max_delay_s
        self._lanes: dict[Hashable, _Lane[T]] = {}
        self._came = 0
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def add(self, item: T, shape: Hashable, deadline_s: float, now_s: float) -> None:
        """Add a row, which waits for a batch.

        Args:
            item: The row, or what stands for it.
            shape: Rows of different shapes are never in one batch; anything hashable, for example (dtype, shape).
            deadline_s: Seconds since the epoch from which the row is late; `inf` for none.
            now_s: Seconds since the epoch, not before that of the row added last.
        """
        lane = self._lanes.get(shape)
        if lane is None:
            lane = self._lanes[shape] = _Lane()
        self._came += 1
        self._waiting += 1
        lane.rows.append((self._came, now_s, deadline_s, item))
        if deadline_s <= now_s + self._max_delay_s:
            lane.urgent += 1

    def take(self, now_s: float, limit_rows: int, needed_s: float = 0.0) -> Taken[T]:
        """The next batch, if one may go.

        Args:
            now_s: Seconds since the epoch.
            limit_rows: Most rows in the batch, at least 1: `rows` of a `BatchLimit`.
            needed_s: How long an answer takes from now on, in seconds: a row that has waited longer than that, and has
                less time left, is late already. One that has just come is given its chance, so that a wrong number
                here never keeps every row away.
        """
        batch: list[T] = []
        late: list[T] = []
        self._drop_late_heads(now_s, needed_s, late)
        while not batch:
            ready = [lane for lane in self._lanes.values() if self._go_at_s(lane, limit_rows) <= now_s]
            if not ready:
                break
            self._move(min(ready, key=_first), limit_rows, now_s, needed_s, batch, late)
            self._forget_empty_lanes()
        self._waiting -= len(batch) + len(late)
        return Taken(batch=batch, late=late, wake_at_s=self._wake_at_s(limit_rows))

    def _drop_late_heads(self, now_s: float, needed_s: float, late: list[T]) -> None:
        """Take out the rows in front that are late, so that they make no batch go early."""
        for lane in self._lanes.values():
            while lane.rows and _is_late(lane.rows[0][1], lane.rows[0][2], now_s, needed_s):
                self._move(lane, 1, now_s, needed_s, late, late)
        self._forget_empty_lanes()

    def _move(self, lane: _Lane[T], most: int, now_s: float, needed_s: float, batch: list[T], late: list[T]) -> None:
        """Move rows out of the lane, in order: at most `most` into the batch; late ones on the way into `late`."""
        popleft, delay_s, taken = lane.rows.popleft, self._max_delay_s, len(batch)
        while lane.rows and len(batch) - taken < most:
            _, came_s, deadline_s, item = popleft()
            if deadline_s <= came_s + delay_s:
                lane.urgent -= 1
            (late if _is_late(came_s, deadline_s, now_s, needed_s) else batch).append(item)

    def _go_at_s(self, lane: _Lane[T], limit_rows: int) -> float:
        """The time from which a batch of the lane may go, in the past when it is full or cannot wait."""
        came_s = lane.rows[0][1]
        return came_s if lane.urgent or len(lane.rows) >= limit_rows else came_s + self._max_delay_s

    def _wake_at_s(self, limit_rows: int) -> float | None:
        return min((self._go_at_s(lane, limit_rows) for lane in self._lanes.values()), default=None)

    def _forget_empty_lanes(self) -> None:
        for shape in [shape for shape, lane in self._lanes.items() if not lane.rows]:
            del self._lanes[shape]


def _is_late(came_s: float, deadline_s: float, now_s: float, needed_s: float) -> bool:
    return deadline_s <= now_s or (deadline_s <= now_s + needed_s and came_s < now_s - needed_s)


def _first(lane: _Lane[T]) -> int:
    return lane.rows[0][0]
