"""A range of several topics, read as one log: by time, then topic, partition and offset, in bounded memory."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from clipper_agents.kafka.admin import unreachable
from clipper_agents.kafka.retry import REQUEST_TIMEOUT_MS, patiently
from clipper_agents.rollout.time_order import Record, TimeOrder
from clipper_topics.connection import KafkaConnection

FETCH_MS = 200
FETCH_BYTES = 1 << 20
MOST_WAITING = 1_000
"""Records of a partition that wait for those of the others, before a fetch; each fetch brings a MiB at most."""


class Range(NamedTuple):
    """Offsets of a partition: from the first on, without the last."""

    first: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """A range of time, in milliseconds since the epoch.

    Attributes:
        since_ms: Records of this time and later.
        until_ms: Records before it; None: up to where the partitions end now.
    """

    since_ms: int
    until_ms: int | None = None


class MergedLog:
    """Records of ranges that are fixed before the first is read: what is written meanwhile is not among them.

    Args:
        consumer: Started, without a group.
        ranges: What to read; of topics in this order, where times are equal.
    """

    def __init__(self, consumer: AIOKafkaConsumer, ranges: Mapping[TopicPartition, Range]) -> None:
        self._consumer = consumer
        self._ranges = {tp: one for tp, one in ranges.items() if one.first < one.end}
        topics = list(dict.fromkeys(tp.topic for tp in ranges))
        self._order = TimeOrder({tp: topics.index(tp.topic) for tp in self._ranges})

    @property
    def offsets(self) -> int:
        """How many offsets the ranges span; compacted ones and markers of transactions have no record."""
        return sum(one.end - one.first for one in self._ranges.values())

    async def records(self) -> AsyncGenerator[tuple[int, Record], None]:
        """Each record with its time in milliseconds, which never goes back within a partition.

        Raises:
            KafkaError: an error that does not pass, for example a missing right.
        """
        if not self._ranges:
            return
        self._consumer.assign(list(self._ranges))
        for tp, one in self._ranges.items():
            self._consumer.seek(tp, one.first)
        at_end: set[TopicPartition] = set()
        while len(at_end) < len(self._ranges):
            await self._fetch(at_end)
            at_end = await self._at_end()
            for found in self._order.release(at_end, float("inf")):
                yield found

    async def _fetch(self, at_end: set[TopicPartition]) -> None:
        wanted = [tp for tp in self._ranges if tp not in at_end and self._order.waiting(tp) < MOST_WAITING]
        fetched: dict[TopicPartition, list[Any]] = await self._consumer.getmany(*wanted, timeout_ms=FETCH_MS)
        for tp, records in fetched.items():
            self._order.add(tp, [record for record in records if record.offset < self._ranges[tp].end])

    async def _at_end(self) -> set[TopicPartition]:
        positions = {tp: await patiently("position", partial(self._consumer.position, tp)) for tp in self._ranges}
        return {tp for tp, position in positions.items() if position >= self._ranges[tp].end}


@asynccontextmanager
async def log_consumer(connection: KafkaConnection) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer for `MergedLog` and `ranges_of`, for the time of the block.

    Raises:
        KafkaUnreachable: no broker answers.
        AccessRefused: a right is missing.
    """
    consumer = AIOKafkaConsumer(
        **connection.aiokafka(),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    try:
        await consumer.start()
        yield consumer
    except KafkaError as error:
        raise await unreachable(connection, error) from error
    finally:
        await consumer.stop()


async def ranges_of(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], times: Times
) -> dict[TopicPartition, Range]:
    """The offsets of a range of time, by the records' timestamps.

    Raises:
        KafkaError: no broker answers, or a right is missing.
    """
    ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    firsts = await _offsets_at(consumer, partitions, times.since_ms)
    lasts = {} if times.until_ms is None else await _offsets_at(consumer, partitions, times.until_ms)
    return {tp: Range(firsts.get(tp, ends[tp]), min(ends[tp], lasts.get(tp, ends[tp]))) for tp in partitions}


async def within_log(consumer: AIOKafkaConsumer, wanted: Mapping[TopicPartition, Range]) -> dict[TopicPartition, Range]:
    """The wanted offsets, without those that the partitions do not have (any more, or yet).

    Raises:
        KafkaError: no broker answers, or a right is missing.
    """
    partitions = list(wanted)
    ends, begins = await asyncio.gather(consumer.end_offsets(partitions), consumer.beginning_offsets(partitions))
    return {tp: Range(max(begins[tp], one.first), min(ends[tp], one.end)) for tp, one in wanted.items()}


async def _offsets_at(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], at_ms: int
) -> dict[TopicPartition, int]:
    """First offset of this time or later, of the partitions that have one."""
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, max(0, at_ms)))
    return {tp: one.offset for tp, one in found.items() if one is not None}
