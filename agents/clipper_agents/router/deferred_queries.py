"""Queries for which there was no room: they wait in the log, and are read again when there is.

Rules of this file:
- A deferred query is not acknowledged, so whoever has its partition next reads it too.
- Only queries without a deadline are deferred: those wait as long as it takes, and keep nobody else waiting.
"""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Protocol

from aiokafka import TopicPartition
from faust.types import TP

from clipper_agents.kafka.reader import LogReader, Record
from clipper_agents.router.query_consumer import QueryConsumer
from clipper_stream.query import DecodedQuery
from clipper_stream.query.admission import Admission

logger = logging.getLogger(__name__)

READ_TOGETHER = 2_000
"""Offsets of one partition that are looked through in one reading."""
LOOK_AGAIN_S = 0.02


class ReadAgain(Protocol):
    """Takes records that are read again: a `QueryAgent`."""

    def receive(self, chunk: Mapping[TP, list[Record]], generation: int, /) -> None:
        """Take records of queries as if they were read for the first time."""
        ...


class DeferredQueries:
    """The offsets of deferred queries, in log order by application and partition.

    Args:
        reader: Reads them again.
        topic: The queries topic.
        consumer: Knows the generation that counts.
        admission: Knows for which application there is room.
    """

    def __init__(self, reader: LogReader, topic: str, consumer: QueryConsumer, admission: Admission) -> None:
        self._reader, self._topic, self._consumer, self._admission = reader, topic, consumer, admission
        self._offsets: defaultdict[str, dict[int, deque[int]]] = defaultdict(dict)
        self._work = asyncio.Event()

    def put(self, queries: Sequence[DecodedQuery]) -> None:
        """Defer queries."""
        for query in queries:
            self._offsets[query.application].setdefault(query.partition, deque()).append(query.offset)
        if queries:
            self._admission.deferred += len(queries)
            self._work.set()

    def clear(self) -> None:
        """Forget all: their partitions were taken away."""
        self._offsets.clear()
        self._admission.deferred = 0

    async def run(self, agent: ReadAgain) -> None:
        """Give them to the agent again as room comes, until cancelled."""
        while True:
            await self._work.wait()
            if not self._offsets:
                self._work.clear()
            elif not await self._read_some(agent):
                await asyncio.sleep(LOOK_AGAIN_S)

    async def close(self) -> None:
        """Disconnect."""
        await self._reader.close()

    async def _read_some(self, agent: ReadAgain) -> bool:
        """Read some queries again, of applications that have room; return False if none has."""
        generation, found = self._consumer.generation, False
        if generation < 0:
            return False
        for application in [*self._offsets]:
            room = self._admission.room(application)
            if room <= 0:
                continue
            found = True
            partition, offsets = self._taken(application, room)
            records = await self._records(partition, offsets)
            if self._consumer.generation != generation:
                return True
            agent.receive({TP(self._topic, partition): records}, generation)
            gone = offsets - {record.offset for record in records}
            if gone:
                logger.warning("deferred queries are in the log no more partition=%d count=%d", partition, len(gone))
                self._consumer.acknowledge(partition, sorted(gone), generation)
        return found

    def _taken(self, application: str, most: int) -> tuple[int, set[int]]:
        """Take the oldest queries of one partition, the one with the most."""
        partitions = self._offsets[application]
        partition = max(partitions, key=lambda number: len(partitions[number]))
        waiting, offsets = partitions[partition], set[int]()
        end = waiting[0] + READ_TOGETHER
        while waiting and waiting[0] < end and len(offsets) < most:
            offsets.add(waiting.popleft())
        self._admission.deferred -= len(offsets)
        if not waiting:
            del partitions[partition]
        if not partitions:
            del self._offsets[application]
        return partition, offsets

    async def _records(self, partition: int, offsets: set[int]) -> list[Record]:
        tp, records = TopicPartition(self._topic, partition), list[Record]()
        await self._reader.read(
            {tp: min(offsets)},
            lambda _, found: records.extend(record for record in found if record.offset in offsets),
            {tp: max(offsets) + 1},
        )
        return records
