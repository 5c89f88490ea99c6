"""A stream of chunks: everything that is queued, in log order per partition, acknowledged by offsets."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import faust
from aiokafka import ConsumerRecord
from faust.types import TP

from clipper_agents.streaming.faust_logs import LIBRARY

Chunk = list[tuple[TP, list[ConsumerRecord[Any, Any]]]]
"""Records by partition, in log order. A partition may stand in it more than once."""


class ChunkStream(faust.Stream):  # type: ignore[misc]
    """An agent's stream that yields what `BulkConsumer` delivers.

    `async for chunk in stream.chunks(1000)` waits for the first list and takes whatever else is queued, up to the
    number of records. Nothing is acknowledged by iterating: `stream.ack` does, when the work is done.
    """

    logger = LIBRARY

    async def chunks(self, max_records: int) -> AsyncIterator[Chunk]:
        """Yield chunks of at most this many records until the agent is stopped."""
        started = await self.maybe_start()
        consumer, queue = self.app.consumer, self.channel.queue
        rest: tuple[TP, list[Any], int] | None = None
        try:
            while not self.should_stop:
                chunk: Chunk = []
                room = max_records
                while room > 0:
                    if rest is None:
                        if chunk and not queue._queue:
                            break
                        try:
                            rest = queue.get_nowait() if queue._queue else await self.channel.__anext__()
                        except StopAsyncIteration:
                            return
                    tp, records, generation = rest
                    if generation != self.app.generation:
                        rest = None
                        continue
                    part, later = records[:room], records[room:]
                    rest = (tp, later, generation) if later else None
                    room -= len(part)
                    consumer.taken(tp, part)
                    chunk.append((tp, part))
                yield chunk
                await asyncio.sleep(0)  # with a backlog nothing else waits here, and answers want to be sent
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


def by_partition(chunk: Chunk) -> dict[TP, list[ConsumerRecord[Any, Any]]]:
    """The records of each partition together, in log order.

    Under load a chunk holds hundreds of short lists: a step that waits for the broker, or a look into an index, for
    each of them would fall behind for ever.
    """
    merged: dict[TP, list[ConsumerRecord[Any, Any]]] = {}
    for tp, records in chunk:
        merged.setdefault(tp, []).extend(records)
    return merged
