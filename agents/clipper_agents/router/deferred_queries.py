"""Queries for which there was no room: they wait in the log, and are read again when there is.

Rules of this file:
- A deferred query is not acknowledged, so whoever has its partition next reads it too.
- It is read again when its application has room, in the order of the log; or while there is still time to answer it.
"""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Protocol

from aiokafka import TopicPartition
from faust.types import TP

from clipper_agents.kafka.reader import LogReader, Record
from clipper_agents.router.query_consumer import QueryConsumer
from clipper_stream.query import QueryBatch
from clipper_stream.query.admission import Admission

logger = logging.getLogger(__name__)

READ_TOGETHER = 2_000
"""Offsets of one partition that are looked through in one reading."""
LOOK_AGAIN_S = 0.02


class ReadAgain(Protocol):
    """Takes records that are read again: a `QueryAgent`."""

    def receive(self, chunk: Mapping[TP, list[Record]], generation: int, /) -> object:
        """Take records of queries as if they were read for the first time."""
        ...


@dataclass(slots=True)
class DeferredLane:
    """Queries of one application in one partition: of each the offset, until when it may wait, and a hash of its id.

    They may come in any order: a backlog that was left is read after what follows it.
    """

    waiting: list[tuple[int, float, int]] = field(default_factory=list)
    """A heap."""
    due_s: float = math.inf

    def put(self, offset: int, until_s: float, id_hash: int) -> None:
        """Add a query."""
        heappush(self.waiting, (offset, until_s, id_hash))
        self.due_s = min(self.due_s, until_s)

    def take(self, room: int, now_s: float) -> dict[int, int]:
        """Take the first offsets, as many as there is room for and as are read together; or of those that are due.

        Return by offset the hash of the id.
        """
        taken: dict[int, int] = {}
        if now_s >= self.due_s:
            due = {offset: id_hash for offset, until_s, id_hash in self.waiting if until_s <= now_s}
            end = min(due, default=0) + READ_TOGETHER
            taken = {offset: id_hash for offset, id_hash in due.items() if offset < end}
            self.waiting = [one for one in self.waiting if one[0] not in taken]
            heapify(self.waiting)
            self.due_s = min((until_s for _, until_s, _ in self.waiting), default=math.inf)
        elif room > 0:
            end = self.waiting[0][0] + READ_TOGETHER
            while self.waiting and self.waiting[0][0] < end and len(taken) < room:
                offset, _, id_hash = heappop(self.waiting)
                taken[offset] = id_hash
        return taken


class DeferredQueries:
    """Has deferred queries read again.

    Args:
        reader: Reads them.
        topic: The queries topic.
        consumer: Knows the generation that counts.
        admission: Knows for which application there is room.
    """

    def __init__(self, reader: LogReader, topic: str, consumer: QueryConsumer, admission: Admission) -> None:
        self._reader, self._topic, self._consumer, self._admission = reader, topic, consumer, admission
        self._lanes: dict[tuple[str, int], DeferredLane] = {}
        self._ids = Counter[tuple[int, int]]()
        """By partition and hash of the id, how many wait."""
        self._work = asyncio.Event()

    def put(self, queries: Sequence[tuple[QueryBatch, int, float]]) -> None:
        """Defer queries, given by batch and index, each until a time in seconds since the epoch."""
        for batch, query, until_s in queries:
            id_hash = hash(batch.ids[query])
            self._ids[batch.partition, id_hash] += 1
            lane = self._lanes.setdefault((batch.application, batch.partition), DeferredLane())
            lane.put(batch.offsets[query], until_s, id_hash)
        if queries:
            self._admission.deferred += len(queries)
            self._work.set()

    def has_id(self, partition: int, query_id: str) -> bool:
        """Return whether a query with this id may be among those that wait."""
        return (partition, hash(query_id)) in self._ids

    def clear(self) -> None:
        """Forget all: their partitions were taken away."""
        self._lanes.clear()
        self._ids.clear()
        self._admission.deferred = 0

    async def run(self, agent: ReadAgain) -> None:
        """Give them to the agent again, until cancelled."""
        while True:
            await self._work.wait()
            if not self._lanes:
                self._work.clear()
            elif not await self._read_some(agent):
                await asyncio.sleep(LOOK_AGAIN_S)

    async def close(self) -> None:
        """Disconnect."""
        await self._reader.close()

    async def _read_some(self, agent: ReadAgain) -> bool:
        """Read some queries of each lane again; return False if there was nothing to read."""
        generation, found = self._consumer.generation, False
        for (application, partition), lane in [*self._lanes.items()] if generation >= 0 else []:
            taken = lane.take(self._admission.room(application), time.time())
            self._admission.deferred -= len(taken)
            if not lane.waiting:
                del self._lanes[application, partition]
            if not taken:
                continue
            found = True
            records = await self._records(partition, taken)
            if self._consumer.generation != generation:
                return True
            agent.receive({TP(self._topic, partition): records}, generation)
            for id_hash in taken.values():
                self._ids[partition, id_hash] -= 1
                if not self._ids[partition, id_hash]:
                    del self._ids[partition, id_hash]
            gone = taken.keys() - {record.offset for record in records}
            if gone:
                logger.warning("deferred queries are in the log no more partition=%d count=%d", partition, len(gone))
                self._consumer.acknowledge(partition, sorted(gone), generation)
        return found

    async def _records(self, partition: int, offsets: Collection[int]) -> list[Record]:
        tp, records = TopicPartition(self._topic, partition), list[Record]()
        await self._reader.read(
            {tp: min(offsets)},
            lambda _, found: records.extend(record for record in found if record.offset in offsets),
            {tp: max(offsets) + 1},
        )
        return records
