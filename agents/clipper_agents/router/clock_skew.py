"""How far this process's clock is ahead of the broker's, from acknowledgements that carry the broker's time.

A deadline is the broker's timestamp of the query and an objective, and this process's clock says when it has come: a
clock that is ahead by more than the objective would make every query late.

Rules of this file:
- The broker stamps a batch after it was sent and before it is acknowledged. So an acknowledgement bounds the difference
  on both sides, and a slow broker widens these bounds, but never makes them wrong.
- The difference reported is the smallest that all acknowledgements of the last interval allow: 0 unless it is certain.
"""

import math

STAMP_S = 0.001
"""The broker truncates its stamps to milliseconds."""
TOLERATED_S = 0.1


class ClockSkew:
    """The difference between this process's clock and the broker's.

    >>> skew = ClockSkew()
    >>> skew.observe(sent_s=100.000, stamped_s=99.500, acknowledged_s=100.004)
    >>> round(skew.take() or 0.0, 3)
    0.499
    """

    def __init__(self) -> None:
        self._least_s, self._most_s = -math.inf, math.inf

    def observe(self, sent_s: float, stamped_s: float, acknowledged_s: float) -> None:
        """Take a batch into account: sent and acknowledged by our clock, stamped by the broker's, in seconds."""
        least_s, most_s = sent_s - stamped_s - STAMP_S, acknowledged_s - stamped_s
        if least_s > self._most_s or most_s < self._least_s:  # a clock was set meanwhile
            self._least_s, self._most_s = least_s, most_s
        else:
            self._least_s, self._most_s = max(self._least_s, least_s), min(self._most_s, most_s)

    def take(self) -> float | None:
        """Return how many seconds this clock is ahead by acknowledgements since the last call; None without any."""
        if self._least_s == -math.inf:
            return None
        ahead_s = max(self._least_s, min(self._most_s, 0.0))
        self._least_s, self._most_s = -math.inf, math.inf
        return ahead_s
