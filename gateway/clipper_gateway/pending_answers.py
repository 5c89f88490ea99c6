"""Answers that were asked for with `Prefer: respond-async`: waited for here, kept a little, told to who listens.

Rules of this file:
- All of it may be lost: the logs have every answer. Nothing is kept without a bound.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from clipper_topics.prediction import Prediction

MOST_KEPT = 10_000
"""Answers that are kept; an older one is read from the log."""
MOST_UNREAD = 1_000
"""Answers that a listener has not taken; beyond that it misses the oldest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingAnswer:
    """A query that was accepted, and the task that waits for its answer."""

    application: str
    context: str | None
    query_id: str
    caller: str
    task: "asyncio.Task[Prediction]"


class PendingAnswers:
    """What was accepted by this gateway."""

    def __init__(self) -> None:
        self._pending: dict[tuple[str, str | None, str], PendingAnswer] = {}
        self._listeners: dict[str, list[asyncio.Queue[Prediction | None]]] = {}

    def add(self, pending: PendingAnswer) -> None:
        """Wait for an answer, keep it, and tell the caller's listeners of it."""
        self._pending[pending.application, pending.context, pending.query_id] = pending
        pending.task.add_done_callback(lambda task: self._answered(pending, task))
        while len(self._pending) > MOST_KEPT:
            del self._pending[next(iter(self._pending))]

    def get(self, application: str, context: str | None, query_id: str) -> PendingAnswer | None:
        """Return a query that was accepted here, None for one that is to be looked up in the log."""
        return self._pending.get((application, context, query_id))

    @contextmanager
    def listen(self, caller: str) -> Iterator[AsyncIterator[Prediction]]:
        """All answers of a caller's queries from now on, until `close`."""
        queue: asyncio.Queue[Prediction | None] = asyncio.Queue()
        self._listeners.setdefault(caller, []).append(queue)
        try:
            yield _taken(queue)
        finally:
            self._listeners[caller].remove(queue)
            if not self._listeners[caller]:
                del self._listeners[caller]

    def close(self) -> None:
        """End every listening: a gateway that ends would wait for them."""
        for queues in self._listeners.values():
            for queue in queues:
                queue.put_nowait(None)

    def _answered(self, pending: PendingAnswer, task: "asyncio.Task[Prediction]") -> None:
        if task.cancelled() or task.exception() is not None:
            self._pending.pop((pending.application, pending.context, pending.query_id), None)
            return
        for queue in self._listeners.get(pending.caller, ()):
            if queue.qsize() >= MOST_UNREAD:
                queue.get_nowait()
            queue.put_nowait(task.result())


async def _taken(queue: "asyncio.Queue[Prediction | None]") -> AsyncIterator[Prediction]:
    while (prediction := await queue.get()) is not None:
        yield prediction
