"""Ranges of one partition of the logs, each read by a consumer of its own, part by part.

Rules of this file:
- A range that is given up closes its consumer at once: use `contextlib.aclosing`.
"""

from bisect import bisect_right
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Protocol

from aiokafka import TopicPartition

from clipper_agents.kafka.errors import checked_partitions
from clipper_agents.kafka.reader import LogReader, Range, Record, open_reader
from clipper_agents.kafka.topics import existing_topics
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

MOST_RECORDS = 4_000
"""Of one list: a few megabytes of predictions."""


class Logs(Protocol):
    """A source of records, by topic, partition and offset."""

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Return the first offset that still exists, and one past the last record."""
        ...

    async def offset_at(self, topic: str, partition: int, at_ms: int) -> int:
        """Return the first offset at or after a time in milliseconds since the epoch; the end if there is none."""
        ...

    def read(self, topic: str, partition: int, start: int, end: int) -> AsyncGenerator[list[Record], None]:
        """Read the records from `start` to before `end`, in lists in log order."""
        ...


class KafkaLogs:
    """The topics of a deployment, read as routers read them: only committed records.

    Args:
        connection: How to reach the brokers.
        catalogue: The topics.

    Raises:
        KafkaUnreachable: no broker answers, or no record comes for a long time.
    """

    def __init__(self, connection: KafkaConnection, catalogue: Catalogue) -> None:
        self._connection, self._catalogue = connection, catalogue

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        tp = TopicPartition(topic, partition)
        async with self._reader() as reader:
            return (await reader.ranges([tp]))[tp]

    async def offset_at(self, topic: str, partition: int, at_ms: int) -> int:
        tp = TopicPartition(topic, partition)
        async with self._reader() as reader:
            end = (await reader.end_offsets([tp]))[tp]
            return (await reader.offsets_at([tp], at_ms)).get(tp, end)

    async def read(self, topic: str, partition: int, start: int, end: int) -> AsyncGenerator[list[Record], None]:
        if start >= end:
            return
        wanted = {TopicPartition(topic, partition): Range(start, end)}
        async with self._reader() as reader, aclosing(reader.lists(wanted, MOST_RECORDS)) as lists:
            async for _, records in lists:
                yield records

    def _reader(self) -> AbstractAsyncContextManager[LogReader]:
        return open_reader(self._connection, isolation_level="read_committed")


async def open_logs(connection: KafkaConnection, catalogue: Catalogue) -> KafkaLogs:
    """Return the logs of a deployment, after a check that every topic to verify or restore from exists.

    Raises:
        KafkaUnreachable: no broker answers.
        TopicMismatch: one is missing, or has other partitions than the settings say.
    """
    found = await existing_topics(connection, catalogue.prefix)
    wanted = {spec.name: spec.partitions for spec in catalogue.fixed_topics()}
    read = (catalogue.predictions, catalogue.audits, catalogue.feedback, catalogue.selection_changelog)
    for topic in (*read, catalogue.control, catalogue.dead_letters):
        checked_partitions(topic, found.get(topic), wanted[topic])
    return KafkaLogs(connection, catalogue)


class Cursor:
    """A range of records that is read in steps.

    Args:
        lists: What `Logs.read` returned.
    """

    def __init__(self, lists: AsyncGenerator[list[Record], None]) -> None:
        self._lists = lists
        self._read: list[Record] = []
        self._next = 0
        self._ended = False

    async def through(self, offset: int) -> AsyncGenerator[list[Record], None]:
        """Read on up to and including an offset, in lists of records."""
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
        """Stop reading."""
        await self._lists.aclose()


def _offset(record: Record) -> int:
    offset: int = record.offset
    return offset
