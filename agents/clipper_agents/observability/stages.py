"""Where a process spends its time, stage by stage: switched on by `--profile`, and free when it is not.

Rules of this file:
- A stage is timed a batch at a time, never a query at a time: two readings of a clock for hundreds of rows.
- A stage is code that runs without waiting; what waits for a broker is nobody's processor time.
- Stages may be nested; what the inner one takes is part of the outer one as well.
"""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

logger = logging.getLogger(__name__)

REPORT_EVERY_S = 10.0


class Stages(Protocol):
    """Times stages: `with stages("decode", len(records)): ...`."""

    def __call__(self, name: str, items: int, /) -> AbstractContextManager[object]: ...


_NOTHING = nullcontext()


def untimed(_name: str, _items: int) -> AbstractContextManager[object]:
    """A `Stages` that does not look at a clock."""
    return _NOTHING


@dataclass(slots=True)
class StageTimer:
    """Batches, items (queries, rows or records) and seconds of one stage so far."""

    clock: Callable[[], float]
    calls: int = 0
    items: int = 0
    spent_s: float = 0.0
    _began_s: float = 0.0

    def __enter__(self) -> None:
        self._began_s = self.clock()

    def __exit__(self, *_: object) -> None:
        self.spent_s += self.clock() - self._began_s


class StageTimers:
    """A `Stages` that keeps sums, and says them every `REPORT_EVERY_S` seconds.

    Args:
        clock: Seconds that never go back.

    >>> stages = StageTimers(iter([0.0, 1.0, 1.5, 2.0]).__next__)
    >>> with stages("decode", 4): pass
    >>> stages.lines()
    ['stage=decode calls=1 items=4 us_a_call=500000.0 us_an_item=125000.00']
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._timers: dict[str, StageTimer] = {}
        self._said_s = clock()

    def __call__(self, name: str, items: int, /) -> StageTimer:
        """The timer of this stage, for one batch of so many items."""
        timer = self._timers.get(name)
        if timer is None:
            timer = self._timers[name] = StageTimer(self._clock)
        timer.calls += 1
        timer.items += items
        return timer

    def lines(self) -> list[str]:
        """Return one line a stage, the most expensive first."""
        timers = sorted(self._timers.items(), key=lambda named: -named[1].spent_s)
        return [
            f"stage={name} calls={timer.calls} items={timer.items} us_a_call={timer.spent_s / timer.calls * 1e6:.1f} "
            f"us_an_item={timer.spent_s / max(1, timer.items) * 1e6:.2f}"
            for name, timer in timers
        ]

    def report(self, *, now: bool = False) -> None:
        """Log the lines, when it is time or at the end."""
        if now or self._clock() - self._said_s >= REPORT_EVERY_S:
            self._said_s = self._clock()
            for line in self.lines():
                logger.info("profile %s", line)
