"""What of one partition is queued for its agent, and what of it is finished."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from operator import attrgetter
from typing import Any

NOTED_EVERY_MS = 1_000
MOST_FINISHED = 10_000
"""Offsets that are kept in their order although they are finished, because one before them is not."""


@dataclass(slots=True)
class RecordBudget:
    """An amount of records: how much of one partition is queued for its agent, say."""

    records: int = 0
    size_bytes: int = 0

    def add(self, records: list[Any]) -> None:
        self.records += len(records)
        self.size_bytes += _size_bytes(records)

    def remove(self, records: list[Any]) -> None:
        self.records -= len(records)
        self.size_bytes -= _size_bytes(records)

    def above(self, records: int, size_bytes: int) -> bool:
        """Return whether more is queued than `records` records, or more than `size_bytes` bytes."""
        return self.records > records or self.size_bytes > size_bytes

    @property
    def is_room(self) -> bool:
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


class OffsetTracker:
    """The contiguous finished prefix of one partition in one generation; its end is what may be committed.

    Offsets are admitted in log order, with gaps (compaction, markers), and finish in any order. Offsets that are left
    for later are admitted when they are read after all; until then the tracker stays before them. One that waits for
    an hour costs the memory of those that are open then, and not of those that finished meanwhile.

    >>> tracker = OffsetTracker()
    >>> tracker.admit([5, 6, 8])
    >>> tracker.finish([8, 5]); tracker.committable
    6
    >>> tracker.skip_to(100); tracker.admit([100, 101]); tracker.finish([6, 101, 100]); tracker.committable
    9
    >>> tracker.skipped_range
    (9, 100)
    >>> tracker.admit_skipped([9, 98], 100); tracker.finish([9, 98]); tracker.committable, tracker.skipped_range
    (102, None)
    """

    __slots__ = ("_runs", "_times", "first", "start")

    def __init__(self, first: int = 0) -> None:
        self._runs = [_Run(0)]
        self._times: deque[tuple[int, int]] = deque()
        self.first = self.start = first
        """The least offset that may be admitted, but for those that were left for later; and what it was before any."""

    def admit(self, offsets: Sequence[int], at_ms: int = 0) -> None:
        """Add offsets that are not finished yet; ascending, and above every offset that was added before.

        `at_ms` is the timestamp of the first of them.
        """
        if offsets:
            self._runs[-1].admit(offsets)
            self._note(offsets[0], at_ms)
            self.first = offsets[-1] + 1

    def _note(self, offset: int, at_ms: int) -> None:
        """Note a time of what is not finished, at most one a second."""
        times = self._unfinished_times()
        if not times or not 0 <= at_ms - times[-1][1] < NOTED_EVERY_MS:
            times.append((offset, at_ms))

    def _unfinished_times(self) -> deque[tuple[int, int]]:
        """The times that were noted, but for those before the first offset that is not finished."""
        times, first = self._times, self.committable or 0
        while len(times) > 1 and times[1][0] <= first:
            times.popleft()
        return times

    def finish(self, offsets: Iterable[int]) -> None:
        """Mark admitted offsets as finished; offsets behind the tracker are ignored."""
        runs = self._runs
        if len(runs) == 1:
            runs[0].finish(offsets)
            return
        for offset in offsets:
            runs[bisect_right(runs, offset, key=_FIRST) - 1].finish((offset,))
        self._join()

    def skip_to(self, end: int) -> None:
        """Leave offsets for later: those behind all that were admitted, up to an end."""
        self._runs[-1].left = self.first
        self._runs.append(_Run(end))
        self.first = self.start = end

    @property
    def skipped_range(self) -> tuple[int, int] | None:
        """The first offsets that were left for later and are not admitted yet: from, and up to; None without any."""
        for run, following in pairwise(self._runs):
            if run.left is not None and run.left < following.first:
                return run.left, following.first
        return None

    def admit_skipped(self, offsets: Sequence[int], upto: int) -> None:
        """Add the first offsets that were left for later: there are no others up to one."""
        for run, following in pairwise(self._runs):
            if run.left is not None and run.left < following.first:
                run.admit(offsets)
                run.left = upto
                break
        self._join()

    @property
    def committable(self) -> int | None:
        """The offset to commit: the first that is not finished, or one past the last; None before any is finished."""
        return self._runs[0].committable

    @property
    def since_ms(self) -> int | None:
        """A time that nothing which is not finished is older than, by its record; None before any was added."""
        times = self._unfinished_times()
        return times[0][1] if times else None

    def is_finished(self, offset: int) -> bool:
        """Whether an offset is finished, here or before this generation."""
        run = self._runs[bisect_right(self._runs, offset, key=_FIRST) - 1]
        return offset < self.first and offset not in run.open and (run.left is None or offset < run.left)

    @property
    def skipped_offsets(self) -> int:
        return sum(following.first - (run.left or 0) for run, following in pairwise(self._runs))

    @property
    def unfinished(self) -> int:
        """Number of offsets that are not finished: admitted ones, and those that are left for later."""
        return self.skipped_offsets + sum(len(run.open) for run in self._runs)

    def _join(self) -> None:
        runs = self._runs
        while len(runs) > 1 and not runs[0].waiting and runs[0].left == runs[1].first:
            runs[1].committable = runs[1].committable or runs[1].first
            del runs[0]


@dataclass(slots=True)
class _Run:
    """Offsets of which none was left for later but the last ones."""

    first: int
    left: int | None = None
    """The first one that was left for later and is not admitted yet; None: none was left."""
    waiting: deque[int] = field(default_factory=deque)
    """Admitted, in their order; some of them may be finished, but not the first."""
    open: set[int] = field(default_factory=set)
    committable: int | None = None

    def admit(self, offsets: Sequence[int]) -> None:
        self.waiting.extend(offsets)
        self.open.update(offsets)

    def finish(self, offsets: Iterable[int]) -> None:
        waiting, open_ = self.waiting, self.open
        open_.difference_update(offsets)
        last = None
        while waiting and waiting[0] not in open_:
            last = waiting.popleft()
        if last is not None:
            self.committable = waiting[0] if waiting else last + 1
        elif len(waiting) > 2 * len(open_) + MOST_FINISHED:
            self.waiting = deque(sorted(open_))


_FIRST = attrgetter("first")
