"""Reads a topic whole, once: partitions together, each in log order."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from clipper_agents.kafka.admin import TIMEOUT_S, unreachable
from clipper_agents.kafka.errors import TopicMismatch
from clipper_agents.kafka.topics import existing_topics
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

POLL_MS = 20
"""Behind the last record there is the marker of its transaction, of which a consumer is not told: so often it is seen
whether the position is behind it."""

Take = Callable[[list[ConsumerRecord[Any, Any]]], None]


async def read_topic(connection: KafkaConnection, catalogue: Catalogue, topic: str, take: Take) -> None:
    """Hand over every record that the topic has now.

    Args:
        connection: Kafka's address.
        catalogue: Of the deployment.
        topic: Its whole name.
        take: Called with lists of records of one partition.

    Raises:
        KafkaUnreachable: no broker answers, or nothing comes for `TIMEOUT_S` seconds.
        TopicMismatch: there is no such topic.
    """
    partitions = (await existing_topics(connection, catalogue.prefix)).get(topic)
    if partitions is None:
        raise TopicMismatch(
            f"topic {topic} does not exist, or this user may not see it: "
            "run `clipper-stream topics create` first, or give it the rights of its role"
        )
    consumer = committed_consumer(connection)
    try:
        await consumer.start()
        await _hand_over(consumer, [TopicPartition(topic, number) for number in range(partitions)], take)
    except (KafkaError, TimeoutError) as error:
        raise await unreachable(connection, error) from error
    finally:
        await consumer.stop()


async def _hand_over(consumer: AIOKafkaConsumer, partitions: list[TopicPartition], take: Take) -> None:
    consumer.assign(partitions)
    ends = await consumer.end_offsets(partitions)
    await consumer.seek_to_beginning(*partitions)
    while True:
        async with asyncio.timeout(TIMEOUT_S):
            left = [tp for tp in partitions if await consumer.position(tp) < ends[tp]]
            if not left:
                return
            fetched = await consumer.getmany(*left, timeout_ms=200)
        for records in fetched.values():
            take(records)


def committed_consumer(connection: KafkaConnection) -> AIOKafkaConsumer:
    """A consumer of no group, that sees of a transaction all or nothing."""
    return AIOKafkaConsumer(
        **connection.aiokafka(),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=10,
    )


async def whole_partitions(
    consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition]
) -> list[ConsumerRecord[Any, Any]]:
    """Every record of the partitions, up to their ends now, in order within each."""
    todo: Mapping[TopicPartition, int] = await _ends(consumer, list(partitions))
    records: list[ConsumerRecord[Any, Any]] = []
    while todo:
        for fetched in (await consumer.getmany(*todo, timeout_ms=POLL_MS)).values():
            records += fetched
        todo = {tp: end for tp, end in todo.items() if await consumer.position(tp) < end}
    return records


async def _ends(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
    """Ends of those that are not empty, all at their beginnings."""
    consumer.assign(partitions)
    ends, starts = await consumer.end_offsets(partitions), await consumer.beginning_offsets(partitions)
    for tp in partitions:
        consumer.seek(tp, starts[tp])
    return {tp: end for tp, end in ends.items() if starts[tp] < end}
