"""The queries topic as this process consumes it: read while there is room in flight, acknowledged when answered.

Rules of this file:
- Two things are bounded, each for itself: queries that wait for models (`Admission`), and, by partition, what waits for
  the broker. So a partition without a leader is read no further, and no other is held up.
"""

import asyncio

from faust.types import TP

from clipper_agents.streaming.app import ClipperApp
from clipper_stream.query import Router


class QueryConsumer:
    """Acknowledges queries; stops reading while the router is full, and while the process drains."""

    def __init__(self, app: ClipperApp, topic: str, router: Router) -> None:
        self._app, self._topic, self._router = app, topic, router
        self._draining = False
        self._room, self._drained = asyncio.Event(), asyncio.Event()
        self._room.set()

    @property
    def generation(self) -> int:
        """The consumer's generation now; -1 while a rebalance is under way."""
        return self._app.generation

    def acknowledge(self, partition: int, offsets: list[int], generation: int) -> None:
        self._app.consumer.acknowledge(TP(self._topic, partition), offsets, generation)
        if self._draining or not self._room.is_set():
            self.update_room(self._router.is_full)

    def has_taken(self, tp: TP, received: int, end: int) -> bool:
        """Return whether all records of a partition before an end were taken, all of these before `received`.

        What was finished before this generation counts as received.
        """
        consumer = self._app.consumer
        frontier = consumer.trackers[tp]
        return bool(consumer.taken_upto(tp) >= end and frontier.first <= max(frontier.start, received))

    async def wait_for_room(self) -> None:
        await self._room.wait()

    def update_room(self, is_full: bool) -> None:
        """Stop reading while the router is full; called after queries were read, answered or dropped."""
        if self._draining or is_full:
            self._room.clear()
        else:
            self._room.set()
        if self._draining and not self._router.in_flight:
            self._drained.set()

    async def drain(self) -> None:
        """Stop reading queries, and wait until those in flight are finished."""
        self._draining = True
        self.update_room(self._router.is_full)
        await self._drained.wait()
