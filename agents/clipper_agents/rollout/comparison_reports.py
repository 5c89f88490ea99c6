"""Publishes how versions compare, for whoever looks on: the newest comparison of each version, now and then.

A comparison that stays the same is written again each `AGAIN_S`: a young record says that a steward is at work.
"""

from collections.abc import Callable, Iterable

from clipper_topics import codec
from clipper_topics.comparison import Comparison, comparison_key

CHANGED_S = 5.0
"""At most so often is a comparison written that changes all the time."""
AGAIN_S = 60.0


class ComparisonReports:
    """The comparisons of one steward; `write` has the value of a key written, None: the version is compared no more."""

    def __init__(self, write: Callable[[bytes, bytes | None], None]) -> None:
        self._write = write
        self._last: dict[bytes, tuple[Comparison, float]] = {}

    def put(self, comparisons: Iterable[Comparison], now_s: float) -> None:
        """Have written what is due of all comparisons that there are, at this monotonic time in seconds."""
        found = {comparison_key(one.application, one.model): one for one in comparisons}
        for key in self._last.keys() - found.keys():
            del self._last[key]
            self._write(key, None)
        for key, one in found.items():
            before, at_s = self._last.get(key, (None, float("-inf")))
            if now_s - at_s >= (AGAIN_S if one == before else CHANGED_S):
                self._last[key] = one, now_s
                self._write(key, codec.comparisons.encode(one))
