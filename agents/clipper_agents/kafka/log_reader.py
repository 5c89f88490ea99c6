"""Reads ranges of topic partitions in bulk, outside any group."""

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from clipper_agents.kafka.retry import REQUEST_TIMEOUT_MS, patiently
from clipper_topics.connection import KafkaConnection

Apply = Callable[[TopicPartition, list[ConsumerRecord[Any, Any]]], None]

FETCH_BYTES = 4 << 20
METADATA_MAX_AGE_MS = 5_000
"""Who leads a partition is looked up so often: a broker that was frozen, and leads no more, is then asked no more."""
BEHIND_S = 20.0
"""How long an end is doubted that lies before what is known. A frozen broker that wakes up says where its log ended
when it was frozen, until it has heard that another one leads: a second or so, and up to nine if it has to be fenced."""
BEHIND_AGAIN_S = 0.5


class Ends(Protocol):
    """Says where partitions end."""

    behind_s: float

    async def end_offsets(self, partitions: list[TopicPartition], /) -> dict[TopicPartition, int]:
        """One past the last record of each partition, now."""
        ...


async def sure_ends(reader: Ends, known: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """Ends of partitions, asked for again while one lies before what is known of it.

    One that stays there is that of another log: its topic was deleted and created again.

    Args:
        reader: Asks.
        known: One past the last offset that is known of each partition.
    """
    until_s = time.monotonic() + reader.behind_s
    ends = await reader.end_offsets(list(known))
    while (behind := [tp for tp, offset in known.items() if ends[tp] < offset]) and time.monotonic() < until_s:
        await asyncio.sleep(BEHIND_AGAIN_S)
        ends |= await reader.end_offsets(behind)
    return ends


class LogReader:
    """One plain consumer with manual assignment; one read at a time. While Kafka is away, a read waits."""

    behind_s = BEHIND_S

    def __init__(self, kafka: KafkaConnection) -> None:
        self._kafka = kafka
        self._consumer: AIOKafkaConsumer | None = None
        self._lock = asyncio.Lock()

    async def close(self) -> None:
        """Stop the consumer, if a read ever started it."""
        async with self._lock:
            if self._consumer is not None:
                await self._consumer.stop()
                self._consumer = None

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """One past the last record of each partition, now."""
        async with self._lock:
            consumer = await patiently("start of a log reader", self._started)
            found: dict[TopicPartition, int] = await patiently("ends", lambda: consumer.end_offsets(partitions))
            return found

    async def read(
        self,
        starts: Mapping[TopicPartition, int | None],
        apply: Apply,
        ends: Mapping[TopicPartition, int] | None = None,
        horizon_s: float | None = None,
    ) -> int:
        """Hand every record of the ranges to `apply`, in lists by partition, in log order.

        Args:
            starts: First offset wanted of each partition; None: the oldest.
            apply: Called with each fetched list.
            ends: One past the last offset wanted; absent: what the partition holds now.
            horizon_s: Skip records older than this, by their timestamps.

        Returns:
            How many records were handed over.
        """
        if not starts:
            return 0
        async with self._lock:
            consumer = await patiently("start of a log reader", self._started)
            firsts, todo = await patiently("ranges", lambda: self._ranges(consumer, starts, ends or {}, horizon_s))
            if not todo:  # an assignment that is taken back before aiokafka has seen it ends its fetching for good
                return 0
            consumer.assign(list(todo))
            for tp in todo:  # nothing is waited for meanwhile: it would fetch from the beginning
                consumer.seek(tp, firsts[tp])
            total = await self._handed_over(consumer, todo, apply)
            consumer.unsubscribe()
            return total

    async def _handed_over(self, consumer: AIOKafkaConsumer, todo: dict[TopicPartition, int], apply: Apply) -> int:
        """Read until each partition is at its end; how many records that were."""
        total = 0
        while todo:
            for tp, fetched in (await consumer.getmany(*todo, timeout_ms=1000)).items():
                records = [record for record in fetched if record.offset < todo[tp]]
                total += len(records)
                if records:
                    apply(tp, records)
            for tp in list(todo):
                if await patiently("position", partial(consumer.position, tp)) >= todo[tp]:
                    del todo[tp]
                    consumer.pause(tp)
        return total

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                **self._kafka.aiokafka(),
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=10,
                request_timeout_ms=REQUEST_TIMEOUT_MS,
                metadata_max_age_ms=METADATA_MAX_AGE_MS,
                max_partition_fetch_bytes=FETCH_BYTES,
            )
            try:
                await consumer.start()
            except BaseException:  # a rebalance may cancel this
                await consumer.stop()
                raise
            self._consumer = consumer
        return self._consumer

    async def _ranges(
        self,
        consumer: AIOKafkaConsumer,
        starts: Mapping[TopicPartition, int | None],
        ends: Mapping[TopicPartition, int],
        horizon_s: float | None,
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """First offsets, and ends of those partitions in which there is something."""
        partitions = list(starts)
        high = await consumer.end_offsets(partitions)
        low = await consumer.beginning_offsets(partitions)
        if horizon_s is not None:
            since_ms = int((time.time() - horizon_s) * 1000)
            found = await consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
            low = {tp: max(low[tp], at.offset if (at := found.get(tp)) else high[tp]) for tp in partitions}
        firsts = {tp: max(low[tp], start or 0) for tp, start in starts.items()}
        return firsts, {tp: end for tp in partitions if (end := min(high[tp], ends.get(tp, high[tp]))) > firsts[tp]}
