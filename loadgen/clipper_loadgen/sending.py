"""Sends what a gate releases: one loop for both modes.

In `rate` mode the pacer opens the gate, query by query, whatever the answers do. In `saturation` mode answers open it,
so that a bounded number of queries is outstanding.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from clipper_loadgen.encoding import Script
from clipper_loadgen.ledger import Ledger

CHUNK = 256
"""Queries handed over before the loop may read answers again: about a millisecond of work."""


class Outlet(Protocol):
    """Where records go."""

    async def send(self, records: Iterable[tuple[int, bytes, bytes]]) -> None:
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
        await outlet.send([(script.partitions[q], script.keys[q], script.value(q)) for q in chunk])
        now_s = clock()
        for query in chunk:
            ledger.sent(query, began_s=began_s, now_s=now_s)
        await asyncio.sleep(0)
        sent = released
