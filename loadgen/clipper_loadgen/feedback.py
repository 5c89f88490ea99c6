"""Feedback some time after each answer: one heap and one timer, whatever number of queries is waiting."""

import asyncio
import heapq
from collections.abc import Callable
from contextlib import suppress

from clipper_loadgen.gate import Send
from clipper_stream.client.batch_sender import TopicRecord

TICK_S = 0.001
"""Feedback that is due within a millisecond leaves together."""


class DelayedFeedback:
    """Sends the feedback of each query a drawn time after its answer, in seconds of the clock; none without delays."""

    def __init__(
        self,
        record_of: Callable[[int], TopicRecord],
        delays_s: list[float] | None,
        send: Send,
        clock: Callable[[], float],
    ) -> None:
        self._record_of, self._delays_s, self._send, self._clock = record_of, delays_s, send, clock
        self._heap: list[tuple[float, int]] = []
        self._due, self._empty = asyncio.Event(), asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self.sent_count = 0

    @property
    def pending(self) -> int:
        """Answered queries whose feedback is not sent."""
        return len(self._heap)

    def answered(self, query: int, now_s: float) -> None:
        """The query was answered now."""
        if self._delays_s is not None:
            heapq.heappush(self._heap, (now_s + self._delays_s[query], query))

    def arm(self) -> None:
        """Set the timer to the first that is due; call it after `answered`, once for many."""
        if self._timer is not None:
            self._timer.cancel()
        if self._heap:
            ahead_s = max(TICK_S, self._heap[0][0] - self._clock())
            self._timer = asyncio.get_running_loop().call_later(ahead_s, self._due.set)

    def take(self) -> list[int]:
        """Remove and give the queries whose feedback is due by now, in order of time."""
        now_s, due = self._clock(), []
        while self._heap and self._heap[0][0] <= now_s:
            due.append(heapq.heappop(self._heap)[1])
        return due

    async def drained(self, at_most_s: float) -> None:
        """Return when all feedback is sent, or after so many seconds."""
        self._empty.clear()
        if self.pending:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), at_most_s)

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            queries = self.take()
            await self._send([self._record_of(query) for query in queries])
            self.sent_count += len(queries)
            self.arm()
            if not self.pending:
                self._empty.set()
