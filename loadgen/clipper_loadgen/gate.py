"""Sends what a gate releases: one loop for both modes.

In `rate` mode the pacer opens the gate, query by query, whatever the answers do. In `saturation` mode answers open it,
so that a bounded number of queries is outstanding.
"""

import asyncio
import math
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, Self

from clipper_loadgen.ledger import Ledger
from clipper_loadgen.script import Script, TopicRecord

CHUNK = 256
"""Queries handed over before the loop may read answers again: about a millisecond of work."""


class Outlet(Protocol):
    """Where records go."""

    async def send(self, records: Iterable[TopicRecord]) -> None:
        """Hand over records of (partition, key, value); waits only where the producer's buffer is full."""
        ...


class Gate:
    """How many queries may have been sent."""

    def __init__(self) -> None:
        self._released = 0
        self._grown = asyncio.Event()

    def release(self, count: int) -> None:
        """Let through `count` queries in all, counted from the start of the run; never fewer than before."""
        if count > self._released:
            self._released = count
            self._grown.set()

    async def beyond(self, sent: int) -> int:
        """The number of queries released, as soon as it is more than were sent."""
        while self._released <= sent:
            self._grown.clear()
            await self._grown.wait()
        return self._released


async def send_released(script: Script, gate: Gate, outlet: Outlet, ledger: Ledger, clock: Callable[[], float]) -> None:
    """Send every query of the script, in order, none before the gate lets it through."""
    sent = 0
    while sent < len(script):
        released = min(await gate.beyond(sent), sent + CHUNK, len(script))
        chunk = range(sent, released)
        began_s = clock()
        await outlet.send([script.record(query) for query in chunk])
        now_s = clock()
        for query in chunk:
            ledger.sent(query, began_s=began_s, now_s=now_s)
        await asyncio.sleep(0)
        sent = released


def releases(
    due_s: Sequence[float], *, clock: Callable[[], float], wait: Callable[[float], bool], tick_s: float = 0.0
) -> Iterator[int]:
    """The number of queries that are due so far, each time that it has grown.

    Whatever is due after a wait is released together: being late never thins the load out.

    Args:
        due_s: Intended send times in seconds of the clock, ascending.
        clock: Seconds.
        wait: Waits so many seconds; True when the run was given up meanwhile.
        tick_s: Least time between two releases; 0 releases each query at its own time.
    """
    released, not_before_s = 0, -math.inf
    while released < len(due_s):
        ahead_s = max(due_s[released], not_before_s) - clock()
        if ahead_s > 0 and wait(ahead_s):
            return
        now_s = clock()
        due = bisect_right(due_s, now_s)
        if due > released:  # a wait may end a little early
            released, not_before_s = due, now_s + tick_s
            yield released


class Pacer:
    """A thread that tells about each release; a context manager that ends the thread.

    A thread, because the timers of an event loop count in whole milliseconds and are late while the loop is busy.
    The times are those of `time.perf_counter`; `on_release` is called in the thread.
    """

    def __init__(self, due_s: Sequence[float], on_release: Callable[[int], object], *, tick_s: float = 0.0) -> None:
        self._due_s, self._on_release, self._tick_s = due_s, on_release, tick_s
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pacer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up.set()
        self._thread.join()

    def _run(self) -> None:
        wait = self._given_up.wait
        for released in releases(self._due_s, clock=time.perf_counter, wait=wait, tick_s=self._tick_s):
            self._on_release(released)
