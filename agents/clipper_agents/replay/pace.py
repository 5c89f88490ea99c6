"""When a logged record is due again, and how late what was sent has been.

The times are fixed by the log, not by how fast the brokers take the records: being late never thins the load out.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

from clipper_agents.observability.histogram import HistogramSeries

BOUNDS_MS = tuple(0.1 * 1.1**number for number in range(150))
"""Each a tenth above the one before, up to two and a half minutes; of what is later, only the largest is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Due times of records, by their logged timestamps.

    >>> pace = Pace(first_ms=60_000, started_s=5.0, speed=10.0)
    >>> pace.due_s(61_000), Pace(first_ms=0, started_s=5.0, speed=None).due_s(61_000)
    (5.1, 5.0)

    Attributes:
        first_ms: Timestamp of the first record, milliseconds since the epoch.
        started_s: When the first record is due, in seconds of the caller's clock.
        speed: So many times faster than it was logged; None: as fast as possible.
    """

    first_ms: int
    started_s: float
    speed: float | None

    def due_s(self, at_ms: int) -> float:
        """Return when a record is due, in seconds of the caller's clock.

        Args:
            at_ms: Its logged timestamp; one before the first counts as the first.
        """
        if self.speed is None:
            return self.started_s
        return self.started_s + max(0, at_ms - self.first_ms) / 1000 / self.speed


class Lateness:
    """Distribution of how late records were sent, in constant memory.

    >>> lateness = Lateness()
    >>> for late_s in (0.001, 0.001, 0.5):
    ...     lateness.add(late_s)
    >>> lateness.percentile_ms(50) < 1.2, lateness.percentile_ms(100)
    (True, 500.0)
    """

    def __init__(self) -> None:
        self._counted = HistogramSeries(BOUNDS_MS)
        self._largest_ms = 0.0

    def add(self, late_s: float) -> None:
        """Count one record, sent this many seconds late; a negative number counts as 0."""
        late_ms = max(0.0, late_s * 1000)
        self._largest_ms = max(self._largest_ms, late_ms)
        self._counted.observe(late_ms)

    def percentile_ms(self, percent: float) -> float | None:
        """Return a percentile of the lateness in milliseconds, at most a tenth too large; None without records.

        Args:
            percent: 0 to 100.
        """
        counts = [*accumulate(self._counted.counts)]
        if not counts[-1]:
            return None
        bucket = bisect_left(counts, max(1, math.ceil(percent / 100 * counts[-1])))
        return round(min(self._largest_ms, [*BOUNDS_MS, math.inf][bucket]), 3)
