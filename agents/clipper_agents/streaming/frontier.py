"""What of one partition is queued for its agent, and what of it is finished."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any


@dataclass(slots=True)
class Backlog:
    """An amount of records: how much of one partition is queued for its agent, say."""

    records: int = 0
    size_bytes: int = 0

    def add(self, records: list[Any]) -> None:
        """Count records as queued."""
        self.records += len(records)
        self.size_bytes += _size_bytes(records)

    def remove(self, records: list[Any]) -> None:
        """Remove records from the count."""
        self.records -= len(records)
        self.size_bytes -= _size_bytes(records)

    def above(self, records: int, size_bytes: int) -> bool:
        """Return whether more is queued than `records` records, or more than `size_bytes` bytes."""
        return self.records > records or self.size_bytes > size_bytes

    @property
    def is_room(self) -> bool:
        """Whether another record is within this amount."""
        return self.records > 0 and self.size_bytes > 0

    def take(self, records: list[Any]) -> list[Any]:
        """Remove as much as the first of some records need, as many as fit but one at least, and return these."""
        part = records[: self.records]
        sizes = [*accumulate(len(record.value or b"") for record in part)]
        fitting = max(1, bisect_right(sizes, self.size_bytes))
        self.records -= fitting
        self.size_bytes -= sizes[fitting - 1]
        return part[:fitting]


def _size_bytes(records: list[Any]) -> int:
    return sum(len(record.value or b"") for record in records)


class Frontier:
    """The contiguous finished prefix of one partition in one generation; its end is what may be committed.

    Offsets are admitted in log order and may have gaps (compaction, transaction markers). An offset finishes once, in
    any order; the frontier moves only past offsets whose predecessors have all finished.

    >>> frontier = Frontier()
    >>> frontier.admit([5, 6, 8])
    >>> frontier.finish([8, 5]); frontier.committable
    6
    >>> frontier.finish([6]); frontier.committable
    9
    """

    __slots__ = ("_finished", "_open", "committable")

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._finished: set[int] = set()
        self.committable: int | None = None
        """The offset to commit: one past the last offset of the finished prefix; None before the first."""

    def admit(self, offsets: Iterable[int]) -> None:
        """Add offsets that are not finished yet; ascending, and above every offset that was added before."""
        self._open.extend(offsets)

    def finish(self, offsets: Iterable[int]) -> None:
        """Mark admitted offsets as finished; offsets behind the frontier are ignored."""
        waiting, finished = self._open, self._finished
        last = None
        for offset in offsets:
            if waiting and offset == waiting[0]:
                last = waiting.popleft()
                finished.discard(last)
            elif waiting and offset > waiting[0]:
                finished.add(offset)
        while waiting and waiting[0] in finished:
            last = waiting.popleft()
            finished.discard(last)
        if last is not None:
            self.committable = last + 1

    @property
    def unfinished(self) -> int:
        """Number of admitted offsets that are not behind the frontier."""
        return len(self._open)
