"""Sends what a gate releases: one loop for both modes.

In `rate` mode the pacer opens the gate, query by query, whatever the answers do. In `saturation` mode answers open it,
so that a bounded number of queries is outstanding.
"""

import asyncio
import math
import threading
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from clipper_loadgen.ledger import Ledger
from clipper_loadgen.script import Script
from clipper_stream.client.batch_sender import TopicRecord

CHUNK = 256
"""Queries handed over before the loop may read answers again: about a millisecond of work."""

Send = Callable[[Iterable[TopicRecord]], Awaitable[None]]
"""Hands records over; waits only where the producer's buffer is full."""


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
        while self._released <= sent:
            self._grown.clear()
            await self._grown.wait()
        return self._released


async def send_released(script: Script, gate: Gate, send: Send, ledger: Ledger, clock: Callable[[], float]) -> None:
    """Send every query of the script, in order, none before the gate lets it through."""
    sent = 0
    while sent < len(script):
        released = min(await gate.beyond(sent), sent + CHUNK, len(script))
        chunk = range(sent, released)
        began_s = clock()
        await send([script.record(query) for query in chunk])
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


@contextmanager
def pacer(due_s: Sequence[float], on_release: Callable[[int], object], *, tick_s: float = 0.0) -> Iterator[None]:
    """Tell about each release, in a thread that ends with the block; times are those of `time.perf_counter`.

    A thread, because the timers of an event loop count in whole milliseconds and are late while the loop is busy.
    """
    given_up = threading.Event()

    def run() -> None:
        for released in releases(due_s, clock=time.perf_counter, wait=given_up.wait, tick_s=tick_s):
            on_release(released)

    thread = threading.Thread(target=run, name="pacer", daemon=True)
    thread.start()
    try:
        yield
    finally:
        given_up.set()
        thread.join()
