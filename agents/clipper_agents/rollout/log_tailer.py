"""Reads predictions, audits and feedback, without a group, and hands their records over in one order.

A round asks where the partitions end, reads, and releases the records whose place in the order is certain
(`time_order`). A partition of which many records wait is not read on until the others have caught up, so memory is
bounded however far back the reading begins.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import islice

from aiokafka import TopicPartition

from clipper_agents.kafka.reader import FOLLOW_BYTES, FOLLOW_WAIT_S, LogReader, Record
from clipper_agents.kafka.retry import WORKERS
from clipper_agents.kafka.time_order import TimeOrder
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

MOST_WAITING = 5_000
"""Most records of one partition that wait for those of the others."""
QUIET_S = 0.5
"""When nothing has come for so long, the broker's clock has passed the last record."""
SLICE = 300
"""Records of a list: in between, the event loop runs other tasks."""


class MergedLogTailer:
    """One reading of the three topics, from a time on.

    Attributes:
        caught_up: Whether all has been read that there was at the start.
    """

    def __init__(self, kafka: KafkaConnection, catalogue: Catalogue) -> None:
        self._reader = LogReader(
            kafka,
            policy=WORKERS,
            fetch_bytes=FOLLOW_BYTES,
            fetch_wait_s=FOLLOW_WAIT_S,
        )
        topics = (catalogue.predictions, catalogue.audits, catalogue.feedback)
        ranks = {
            TopicPartition(topic, number): rank
            for rank, topic in enumerate(topics)
            for number in range(catalogue.partitions)
        }
        self._partitions = list(ranks)
        self._order = TimeOrder(ranks)
        self._last: tuple[int, float] = (-1, 0.0)
        self._first_ends: dict[TopicPartition, int] = {}
        self.caught_up = False

    @property
    def lag(self) -> dict[tuple[str, int], int]:
        """Records of each partition that were not read at the last look."""
        positions = self._reader.positions
        return {(tp.topic, tp.partition): max(0, end - positions[tp]) for tp, end in self._reader.ends.items()}

    async def start(self, since_ms: int) -> None:
        """Connect, and go to the first records of that time, milliseconds since the epoch."""
        reader = self._reader
        ends = await reader.end_offsets(self._partitions)  # before: what is written in between is read, not passed
        self._first_ends = dict(ends)
        found = await reader.offsets_at(self._partitions, since_ms)
        await reader.follow({tp: found.get(tp, ends[tp]) for tp in self._partitions}, ends)

    async def stop(self) -> None:
        await self._reader.close()

    async def follow(self) -> AsyncIterator[list[tuple[int, Record]]]:
        """Lists of records, each with its time in milliseconds, without end; a list a round, an empty one too."""
        while True:
            sure_ms: float = self._order.newest_ms
            newest_ms, since_s = self._last
            if newest_ms != self._order.newest_ms:
                self._last = self._order.newest_ms, time.monotonic()
            elif time.monotonic() - since_s > QUIET_S:
                sure_ms = float("inf")
            self._reader.ends = await self._reader.end_offsets(self._partitions)
            wanted = [tp for tp in self._partitions if self._order.waiting(tp) < MOST_WAITING]
            for tp, records in (await self._reader.fetch(wanted, wait_s=FOLLOW_WAIT_S)).items():
                self._order.add(tp, records)
            released = self._order.release({*self._partitions}.difference(self._reader.behind), sure_ms)
            is_over = False
            while not is_over:
                some = list(islice(released, SLICE))
                is_over = len(some) < SLICE
                yield some
                await asyncio.sleep(0)
            positions = self._reader.positions
            self.caught_up = all(positions[tp] >= end for tp, end in self._first_ends.items())
