"""A stream of what is queued, in log order per partition, acknowledged by offsets."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeAlias, cast

import faust
from faust.types import TP

from clipper_agents.kafka.reader import Record
from clipper_agents.streaming.offset_tracker import RecordBudget

Chunk: TypeAlias = list[tuple[TP, list[Record]]]
"""Records by partition, in log order. A partition may stand in it more than once."""
Lanes: TypeAlias = dict[TP, deque[tuple[list[Record], int]]]
"""What is queued of each partition that has anything: lists of records, each with its generation."""
MAX_BYTES = 8 << 20
"""Of a chunk, unless an agent says otherwise."""


class ChunkStream(faust.Stream):  # type: ignore[misc]
    """An agent's stream that yields what `GroupConsumer` delivers.

    Nothing is acknowledged by iterating: `stream.ack` does, when the work is done. What is not taken yet counts as
    queued, and at its high-water mark the consumer pauses the partition.
    """

    async def chunks(
        self, max_records: int, held: Callable[[TP], bool] = lambda _: False, max_bytes: int = MAX_BYTES
    ) -> AsyncGenerator[Chunk, None]:
        """Yield chunks of at most this many records and bytes, or of one record, until the agent is stopped.

        Partitions of which `held` is true are left out until something of them is acknowledged.
        """
        lanes: Lanes = {}
        async with self._iterating():
            while not self.should_stop:
                chunk: Chunk = []
                room = RecordBudget(max_records, max_bytes)
                for tp in [*lanes]:
                    self._take(tp, lanes, room, held, chunk)
                while room.is_room and (self.channel.queue._queue or not chunk):
                    if (received := await self._receive(lanes)) is None:
                        return
                    self._take(received, lanes, room, held, chunk)
                yield chunk
                await asyncio.sleep(0)  # with a backlog nothing else waits here, and answers want to be sent

    async def serve_partitions(
        self, max_records: int, serve: Callable[[TP, list[Record], int], Awaitable[None]]
    ) -> None:
        """Call `serve` with records of one partition and their generation; no partition waits for another's call."""
        lanes: Lanes = {}
        busy: set[TP] = set()

        async def serve_one(tp: TP) -> None:
            while tp in lanes:
                chunk: Chunk = []
                generation = self.generation
                self._take(tp, lanes, RecordBudget(max_records, MAX_BYTES), lambda _: False, chunk)
                if chunk:
                    await serve(tp, [record for _, records in chunk for record in records], generation)
            busy.discard(tp)

        async with self._iterating(), _first_failure(), asyncio.TaskGroup() as group:
            while not self.should_stop:
                if (tp := await self._receive(lanes)) is None:
                    return
                if tp not in busy:
                    busy.add(tp)
                    group.create_task(serve_one(tp))

    def _take(self, tp: TP, lanes: Lanes, room: RecordBudget, held: Callable[[TP], bool], chunk: Chunk) -> None:
        lane = lanes[tp]
        while lane and room.is_room:
            if held(tp):
                self.app.consumer.held_back.add(tp)
                return
            records, generation = lane.popleft()
            if generation != self.app.generation:
                continue
            first = self.app.consumer.trackers[tp].first
            if records and records[0].offset < first:
                left = [record for record in records if record.offset < first]
                self.app.consumer.dropped(tp, left)
                records = records[len(left) :]
            if not records:
                continue
            part = room.take(records)
            if len(part) < len(records):
                lane.appendleft((records[len(part) :], generation))
            self.app.consumer.taken(tp, part)
            chunk.append((tp, part))
        if not lane:
            del lanes[tp]

    async def _receive(self, lanes: Lanes) -> TP | None:
        """Put what the consumer delivers next into its lane, and return the partition; None: the agent is stopped."""
        queue = self.channel.queue
        try:
            tp, records, generation = queue.get_nowait() if queue._queue else await self.channel.__anext__()
        except StopAsyncIteration:
            return None
        lanes.setdefault(tp, deque()).append((records, generation))
        return cast("TP", tp)

    @asynccontextmanager
    async def _iterating(self) -> AsyncIterator[None]:
        started = await self.maybe_start()
        try:
            yield
        finally:
            self._channel_stop_iteration(self.channel)
            if started:
                await self.stop()
                self.service_reset()

    @property
    def generation(self) -> int:
        """The generation of the chunk that was just yielded; read it before the first `await`."""
        return int(self.app.generation)

    def ack(self, tp: TP, offsets: Iterable[int], generation: int) -> None:
        """Mark offsets as finished; the commit timer commits the contiguous finished prefix."""
        self.app.consumer.acknowledge(tp, offsets, generation)


def newest_age_s(chunk: Chunk) -> float:
    """Return how long ago, in seconds, the newest record at the head of a partition's list was sent."""
    sent_ms: int = max(records[0].timestamp for _, records in chunk)
    return max(0.0, time.time() - sent_ms / 1000)


def by_partition(chunk: Chunk) -> dict[TP, list[Record]]:
    """The records of each partition together, in log order.

    Under load a chunk holds hundreds of short lists: a step that waits for the broker, or a look into an index, for
    each of them would fall behind for ever.
    """
    merged: dict[TP, list[Record]] = {}
    for tp, records in chunk:
        merged.setdefault(tp, []).extend(records)
    return merged


@asynccontextmanager
async def _first_failure() -> AsyncIterator[None]:
    try:
        yield
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
