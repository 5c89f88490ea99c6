"""Reads predictions, audits and feedback, without a group, and hands their records over in one order.

A round asks where the partitions end, reads, and releases what nothing can come before any more (`ordering`). A
partition of which much waits already is not read on until the others have caught up, so memory is bounded however far
back the reading begins.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from clipper_agents.kafka.retry import REQUEST_TIMEOUT_MS, patiently
from clipper_agents.rollout.time_order import Record, TimeOrder
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

FETCH_MS = 200
MOST_WAITING = 5_000
"""Records of a partition that wait for those of the others."""
QUIET_S = 0.5
"""When nothing has come for so long, the broker's clock has passed the last record."""
FETCH_BYTES = 1 << 20
SLICE = 300


class LogsInOrder:
    """One reading of the three topics, from a time on.

    Args:
        kafka: How to reach the brokers.
        catalogue: The topics.
    """

    def __init__(self, kafka: KafkaConnection, catalogue: Catalogue) -> None:
        self._kafka = kafka
        self._consumer: Any = None
        topics = (catalogue.predictions, catalogue.audits, catalogue.feedback)
        ranks = {
            TopicPartition(topic, number): rank
            for rank, topic in enumerate(topics)
            for number in range(catalogue.partitions)
        }
        self._partitions = list(ranks)
        self._order = TimeOrder(ranks)
        self._ends: dict[TopicPartition, int] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._last: tuple[int, float] = (-1, 0.0)

    @property
    def lag(self) -> dict[tuple[str, int], int]:
        """Records of each partition that were not read at the last look."""
        return {(tp.topic, tp.partition): max(0, end - self._positions.get(tp, end)) for tp, end in self._ends.items()}

    async def start(self, since_ms: int) -> None:
        """Connect, and go to the first records of that time, milliseconds since the epoch."""
        self._consumer = await patiently("start of a reader of the logs", self._connected)
        self._consumer.assign(self._partitions)
        times = dict.fromkeys(self._partitions, max(0, since_ms))
        self._ends = await self._look()  # before: what is written in between is read, not passed
        found = await patiently("offsets of a time", lambda: self._consumer.offsets_for_times(times))
        for tp in self._partitions:
            first = found.get(tp)
            self._consumer.seek(tp, self._ends[tp] if first is None else first.offset)

    async def stop(self) -> None:
        """Disconnect, if it was ever connected."""
        if self._consumer is not None:
            await self._consumer.stop()

    async def follow(self) -> AsyncIterator[list[tuple[int, Record]]]:
        """Lists of records, each with its time in milliseconds, without end; a list a round, an empty one too."""
        while True:
            sure_ms: float = self._order.newest_ms
            newest_ms, since_s = self._last
            if newest_ms != self._order.newest_ms:
                self._last = self._order.newest_ms, time.monotonic()
            elif time.monotonic() - since_s > QUIET_S:
                sure_ms = float("inf")
            self._ends = await self._look()
            await self._fetch(self._partitions)
            for records in _slices(self._order.release(await self._at_end(), sure_ms)):
                yield records
                await asyncio.sleep(0)

    async def to_the_end(self) -> AsyncIterator[list[tuple[int, Record]]]:
        """The same up to where the partitions ended at the start."""
        at_end = await self._at_end()
        while len(at_end) < len(self._partitions):
            await self._fetch([tp for tp in self._partitions if tp not in at_end])
            at_end = await self._at_end()
            yield list(self._order.release(at_end, float("inf")))
        yield list(self._order.release(at_end, float("inf")))

    async def _connected(self) -> Any:
        consumer = AIOKafkaConsumer(
            **self._kafka.aiokafka(),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=FETCH_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        try:
            await consumer.start()
        except BaseException:
            await consumer.stop()
            raise
        return consumer

    async def _look(self) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = await patiently("ends", lambda: self._consumer.end_offsets(self._partitions))
        return found

    async def _fetch(self, partitions: list[TopicPartition]) -> None:
        wanted = [tp for tp in partitions if self._order.waiting(tp) < MOST_WAITING]
        if not wanted:
            return
        fetched: dict[TopicPartition, list[Any]] = await self._consumer.getmany(*wanted, timeout_ms=FETCH_MS)
        for tp, records in fetched.items():
            self._order.add(tp, records)

    async def _at_end(self) -> set[TopicPartition]:
        for tp in self._partitions:
            self._positions[tp] = await patiently("position", partial(self._consumer.position, tp))
        return {tp for tp, position in self._positions.items() if position >= self._ends[tp]}


def _slices(records: Iterator[tuple[int, Record]]) -> Iterator[list[tuple[int, Record]]]:
    """Lists of a few hundred, at least one, so that the loop comes to something else in between."""
    first = list(islice(records, SLICE))
    yield first
    while following := list(islice(records, SLICE)):
        yield following
