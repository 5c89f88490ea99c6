"""Fetches that wait until they are worth their price: each costs the same, however many records it brings.

A process that is idle fetches at once. From half of a processor on it waits a little before each fetch, so that the
price of a record falls as the load rises, and a busy process does not tip over.
"""

import time
from collections.abc import Callable, Iterable

MOST_S = 0.008
"""Waits of 2 ms changed nothing where a round costs as much; 16 ms were no better than 8."""
OBJECTIVE_SHARE = 0.1
"""Of the tightest latency objective, or of a model's target, which a wait is at most."""
BUSY_SHARE = 0.5
"""Of a processor, from which on fetches wait."""
FULL_SHARE = 0.7
"""From which on they wait the longest."""
WINDOW_S = 0.1
"""Over which the use of the processor is measured."""


class Pace:
    """Says how long a fetch waits.

    Args:
        most_s: Longest wait, in seconds.
        clock: Monotonic seconds.
        cpu: Processor time of this process, in seconds.
    """

    def __init__(
        self,
        most_s: float = MOST_S,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self._most_s, self._clock, self._cpu = most_s, clock, cpu
        self._since_s, self._used_s = clock(), cpu()
        self._share = 0.0

    def keep(self, objectives_s: Iterable[float | None]) -> None:
        """Keep waits within a share of these objectives or targets of latency, in seconds; None: there is none."""
        bounds_s = [objective_s * OBJECTIVE_SHARE for objective_s in objectives_s if objective_s is not None]
        self._most_s = min([MOST_S, *bounds_s])

    def wait_s(self) -> float:
        """How long the next fetch waits, in seconds."""
        passed_s = self._clock() - self._since_s
        if passed_s >= WINDOW_S:
            used_s = self._cpu()
            self._share = (used_s - self._used_s) / passed_s
            self._since_s, self._used_s = self._since_s + passed_s, used_s
        return self._most_s * min(1.0, max(0.0, (self._share - BUSY_SHARE) / (FULL_SHARE - BUSY_SHARE)))
