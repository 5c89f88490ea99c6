"""Ranges of topic partitions, read one after another with bounded memory and outside any group.

Rules of this file:
- A range ends where it was said to end; what is written meanwhile is another range.
- Records are read as routers read them, those of transactions that were broken off too.
- A range that is given up closes its consumer at once: use `contextlib.aclosing`.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol, TypeAlias

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from clipper_agents.kafka.admin import TIMEOUT_S, unreachable
from clipper_topics.connection import KafkaConnection

Record: TypeAlias = ConsumerRecord[Any, Any]
POLL_MS = 200
FETCH_BYTES = 4 << 20
MOST_RECORDS = 4_000
"""Of one list: a few megabytes of predictions."""


class Logs(Protocol):
    """Where records come from; offsets are those of the topic partition."""

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """The first offset that is still there, and one past the last record now."""
        ...

    async def offset_at(self, topic: str, partition: int, at_ms: int) -> int:
        """The first record of this time (milliseconds since the epoch) or later; the end when there is none."""
        ...

    def read(self, topic: str, partition: int, start: int, end: int) -> AsyncGenerator[list[Record], None]:
        """Lists of records from `start` on, up to before `end`, in log order."""
        ...


class KafkaLogs:
    """The topics of a cluster.

    Args:
        connection: How to reach the brokers.

    Raises:
        KafkaUnreachable: no broker answers, or nothing comes for `TIMEOUT_S` seconds.
    """

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        tp = TopicPartition(topic, partition)
        async with _Started(self._connection) as consumer:
            first, end = await consumer.beginning_offsets([tp]), await consumer.end_offsets([tp])
            return first[tp], end[tp]

    async def offset_at(self, topic: str, partition: int, at_ms: int) -> int:
        tp = TopicPartition(topic, partition)
        async with _Started(self._connection) as consumer:
            end: int = (await consumer.end_offsets([tp]))[tp]
            found: Mapping[TopicPartition, Any] = await consumer.offsets_for_times({tp: at_ms})
            return end if found.get(tp) is None else int(found[tp].offset)

    async def read(self, topic: str, partition: int, start: int, end: int) -> AsyncGenerator[list[Record], None]:
        if start >= end:
            return
        tp = TopicPartition(topic, partition)
        async with _Started(self._connection) as consumer:
            consumer.assign([tp])
            consumer.seek(tp, start)
            while await consumer.position(tp) < end:
                async with asyncio.timeout(TIMEOUT_S):
                    fetched = await consumer.getmany(tp, timeout_ms=POLL_MS, max_records=MOST_RECORDS)
                records = [record for record in fetched.get(tp, ()) if record.offset < end]
                if records:
                    yield records


class _Started:
    """A consumer for the time of the block, its errors in words of this project."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._consumer = AIOKafkaConsumer(
            **connection.aiokafka(),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=10,
            max_partition_fetch_bytes=FETCH_BYTES,
        )

    async def __aenter__(self) -> AIOKafkaConsumer:
        try:
            await self._consumer.start()
        except (KafkaError, TimeoutError) as error:
            await self._consumer.stop()
            raise await unreachable(self._connection, error) from error
        return self._consumer

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        await self._consumer.stop()
        if isinstance(error, KafkaError | TimeoutError):
            raise await unreachable(self._connection, error) from error


class Cursor:
    """A range that is read on as far as is wanted, part by part.

    Args:
        lists: Of `Logs.read`.
    """

    def __init__(self, lists: AsyncGenerator[list[Record], None]) -> None:
        self._lists = lists
        self._read: list[Record] = []
        self._next = 0
        self._ended = False

    async def through(self, offset: int) -> AsyncGenerator[list[Record], None]:
        """Lists of the records up to and with this offset that were not read yet."""
        while not self._ended:
            stop = bisect_right(self._read, offset, self._next, key=_offset)
            ready, self._next = self._read[self._next : stop], stop
            if ready:
                yield ready
            if self._next < len(self._read):
                return
            try:
                self._read, self._next = await anext(self._lists), 0
            except StopAsyncIteration:
                self._ended = True

    async def close(self) -> None:
        """Read no further."""
        await self._lists.aclose()


def _offset(record: Record) -> int:
    offset: int = record.offset
    return offset
