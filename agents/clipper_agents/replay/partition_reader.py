"""Reads one partition of the logs to the end of a span, and hands out its decisions as they are finished.

Rules of this file:
- Read is what is oldest, so that feedback comes when its prediction is known and a chunk is finished soon.
- Records that a transaction took back are not read.
- A broker that stays away for `TIMEOUT_S` is an error: whoever reads a log reads it again.
"""

import asyncio
import math
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable
from operator import attrgetter
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from clipper_agents.kafka.admin import TIMEOUT_S
from clipper_agents.replay.partition_join import PartitionJoin
from clipper_agents.replay.span import PartitionSpan
from clipper_agents.replay.wire import Record
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

FETCH_BYTES = 4 << 20
FETCH_MS = 100
AT_ONCE = 8_192
"""Records that are taken in before it is looked what is oldest."""
_at_ms = attrgetter("timestamp")

Progress = Callable[[int], None]
"""Told how many records have been read since it was told last."""


def logs_consumer(kafka: KafkaConnection) -> AIOKafkaConsumer:
    """A consumer of no group for whole partitions, that sees of a transaction all or nothing."""
    return AIOKafkaConsumer(
        **kafka.aiokafka(),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=FETCH_MS,
        max_partition_fetch_bytes=FETCH_BYTES,
    )


class _Cursor:
    """How far one topic has been read.

    Attributes:
        at_ms: Timestamp of the next record, or of the last one when it is not known; infinite at the end.
        fetched: Records that wait.
    """

    def __init__(self, tp: TopicPartition, end: int, take: Callable[[list[Record]], None]) -> None:
        self.tp, self.end, self._take = tp, end, take
        self.at_ms: float = -1.0
        self._next = -1
        self.fetched: list[Record] = []

    def take(self, upto_ms: float) -> int:
        """Hand over records up to this time, and one at least if it is the turn of this topic; how many they were."""
        count = bisect_right(self.fetched, upto_ms, key=_at_ms) if upto_ms < math.inf else len(self.fetched)
        if self.fetched and self.at_ms <= upto_ms:
            count = max(1, count)  # where clocks went back, nothing may be found though there is something
        if count:
            self._take(self.fetched[:count])
            self.at_ms = max(self.at_ms, self.fetched[count - 1].timestamp)
            self.fetched = self.fetched[count:]
        if self.fetched:
            self.at_ms = max(self.at_ms, self.fetched[0].timestamp)
        elif self._next >= self.end:
            self.at_ms = math.inf
        return count

    async def fetch(self, consumer: Any) -> None:
        """Wait for the next records, or for the end."""
        while not self.fetched and self._next < self.end:
            await self._poll(consumer)

    async def _poll(self, consumer: Any) -> None:
        found: dict[TopicPartition, list[Record]] = await consumer.getmany(
            self.tp, timeout_ms=FETCH_MS, max_records=AT_ONCE
        )
        records = found.get(self.tp, [])
        if records:
            self._next = records[-1].offset + 1
            self.fetched = [one for one in records if one.offset < self.end] if self._next > self.end else records
        elif await consumer.position(self.tp) >= self.end:
            self._next = self.end
        if self.fetched:
            self.at_ms = max(self.at_ms, self.fetched[0].timestamp)


async def read_partition(
    consumer: AIOKafkaConsumer,
    catalogue: Catalogue,
    span: PartitionSpan,
    join: PartitionJoin,
    progress: Progress = lambda _: None,
) -> AsyncIterator[DecisionColumns]:
    """The decisions of one partition, in log order.

    Args:
        consumer: Started, by `logs_consumer`; what it is assigned is changed.
        catalogue: Of the deployment.
        span: The offsets.
        join: Of this partition, new.
        progress: Told of what was read.

    Raises:
        KafkaError: the broker refuses.
        TimeoutError: nothing came for `TIMEOUT_S` seconds.
    """
    predictions, *others = _cursors(catalogue, span, join)
    cursors = [predictions, *others]
    _assign(consumer, span, cursors)
    while live := [cursor for cursor in cursors if cursor.at_ms < math.inf]:
        oldest = min(live, key=lambda cursor: cursor.at_ms)
        if not oldest.fetched:
            async with asyncio.timeout(TIMEOUT_S):
                await oldest.fetch(consumer)
        progress(oldest.take(math.inf if oldest is predictions else predictions.at_ms))
        for columns in join.finished(min(cursor.at_ms for cursor in others)):
            yield columns
    for columns in join.end():
        yield columns


def _cursors(catalogue: Catalogue, span: PartitionSpan, join: PartitionJoin) -> list[_Cursor]:
    return [
        _Cursor(TopicPartition(topic, span.partition), end, take)
        for topic, (_, end), take in (
            (catalogue.predictions, span.predictions, join.predictions),
            (catalogue.audits, span.audits, join.audits),
            (catalogue.feedback, span.feedback, join.feedback),
        )
    ]


def _assign(consumer: Any, span: PartitionSpan, cursors: list[_Cursor]) -> None:
    begins = dict(zip(cursors, (span.predictions[0], span.audits[0], span.feedback[0]), strict=True))
    wanted = [cursor for cursor in cursors if begins[cursor] < cursor.end]
    for cursor in cursors:
        if cursor not in wanted:
            cursor.at_ms = math.inf
    consumer.assign([cursor.tp for cursor in wanted])
    for cursor in wanted:  # nothing is waited for meanwhile: it would fetch from the beginning
        consumer.seek(cursor.tp, begins[cursor])
