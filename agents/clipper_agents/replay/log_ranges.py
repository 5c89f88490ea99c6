"""Logs of a deployment that are read whole, partition by partition."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from aiokafka import TopicPartition

from clipper_agents.kafka.errors import checked_partitions
from clipper_agents.kafka.reader import Range, Record, open_reader
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

    def read(self, topic: str, partition: int, start: int, end: int) -> AsyncGenerator[list[Record], None]:
        """Read the records from `start` to before `end`, in lists in log order; use `contextlib.aclosing`."""
        ...


class KafkaLogs:
    """The topics of a deployment, read as routers read them: only committed records.

    Raises:
        KafkaUnreachable: no broker answers, or no record comes for a long time.
    """

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        tp = TopicPartition(topic, partition)
        async with open_reader(self._connection) as reader:
            return (await reader.ranges([tp]))[tp]

    async def read(self, topic: str, partition: int, start: int, end: int) -> AsyncGenerator[list[Record], None]:
        if start >= end:
            return
        wanted = {TopicPartition(topic, partition): Range(start, end)}
        async with (
            open_reader(self._connection) as reader,
            aclosing(reader.lists(wanted, MOST_RECORDS)) as lists,
        ):
            async for _, records in lists:
                yield records


async def open_logs(connection: KafkaConnection, catalogue: Catalogue) -> KafkaLogs:
    """Return the logs of a deployment, after a check that every topic to verify from exists.

    Raises:
        KafkaUnreachable: no broker answers.
        TopicMismatch: one is missing, or has other partitions than the settings say.
    """
    found = await existing_topics(connection, catalogue.prefix)
    wanted = {spec.name: spec.partitions for spec in catalogue.fixed_topics()}
    read = (catalogue.predictions, catalogue.audits, catalogue.feedback, catalogue.selection_changelog)
    for topic in (*read, catalogue.control):
        checked_partitions(topic, found.get(topic), wanted[topic])
    return KafkaLogs(connection)
