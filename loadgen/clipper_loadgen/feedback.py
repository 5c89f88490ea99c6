"""Feedback some time after each answer."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from clipper_loadgen.gate import Send
from clipper_stream.client.batch_sender import TopicRecord


class DelayedFeedback:
    """Sends the feedback of each query a drawn time after its answer, in seconds; none without delays.

    Attributes:
        pending: Answered queries whose feedback is not sent.
        sent_count: Feedback records sent so far.
    """

    def __init__(self, record_of: Callable[[int], TopicRecord], delays_s: list[float] | None, send: Send) -> None:
        self._record_of, self._delays_s, self._send = record_of, delays_s, send
        self._due: list[int] = []
        self._is_due, self._empty = asyncio.Event(), asyncio.Event()
        self.pending, self.sent_count = 0, 0

    def answered(self, query: int) -> None:
        """The query was answered now."""
        if self._delays_s is not None:
            self.pending += 1
            asyncio.get_running_loop().call_later(self._delays_s[query], self._take, query)

    async def drained(self, at_most_s: float) -> None:
        """Return when all feedback is sent, or after so many seconds."""
        self._empty.clear()
        if self.pending:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), at_most_s)

    async def run(self) -> None:
        """Send until cancelled; what is due at the same time leaves together."""
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            queries, self._due = self._due, []
            await self._send([self._record_of(query) for query in queries])
            self.sent_count += len(queries)
            self.pending -= len(queries)
            if not self.pending:
                self._empty.set()

    def _take(self, query: int) -> None:
        self._due.append(query)
        self._is_due.set()
