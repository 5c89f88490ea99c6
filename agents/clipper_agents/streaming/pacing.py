"""Fetches that wait until they are worth their price: each costs the same, however many records it brings.

A process that is idle fetches at once. From half of a processor on it waits a little before each fetch, so that the
price of a record falls as the load rises, and a busy process does not tip over.
"""

import time
from collections.abc import Callable

MOST_S = 0.002
BUSY_SHARE = 0.5
"""Of a processor, from which on fetches wait."""
WINDOW_S = 0.1
"""Over which the use of the processor is measured."""


class Pace:
    """Says how long a fetch waits.

    Args:
        clock: Monotonic seconds.
        cpu: Processor time of this process, in seconds.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, cpu: Callable[[], float] = time.process_time
    ) -> None:
        self._clock, self._cpu = clock, cpu
        self._since_s, self._used_s = clock(), cpu()
        self._wait_s = 0.0

    def wait_s(self) -> float:
        """How long the next fetch waits, in seconds."""
        passed_s = self._clock() - self._since_s
        if passed_s >= WINDOW_S:
            used_s = self._cpu()
            share = (used_s - self._used_s) / passed_s
            self._since_s, self._used_s = self._since_s + passed_s, used_s
            self._wait_s = MOST_S * min(1.0, max(0.0, (share - BUSY_SHARE) / (1 - BUSY_SHARE)))
        return self._wait_s
