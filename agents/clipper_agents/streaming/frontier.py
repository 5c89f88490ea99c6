"""Which offset of a partition may be committed: the end of the contiguous finished prefix.

Rules of this file:
- Offsets are admitted in log order and may have gaps (compaction, transaction markers).
- An offset finishes once, in any order; the frontier moves only past offsets whose predecessors have all finished.
"""

from collections import deque
from collections.abc import Iterable


class Frontier:
    """The finished prefix of one partition in one generation.

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
        """Take on offsets, ascending, above every offset admitted before."""
        self._open.extend(offsets)

    def finish(self, offsets: Iterable[int]) -> None:
        """Mark admitted offsets as finished; one that is behind the frontier already is no news."""
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
        """How many admitted offsets have not moved behind the frontier."""
        return len(self._open)
