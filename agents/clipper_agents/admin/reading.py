"""Reads a topic whole, once: partitions together, each in log order."""

import asyncio
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from clipper_agents.admin.client import TIMEOUT_S, unreachable
from clipper_agents.admin.control_log import committed_consumer
from clipper_agents.admin.errors import TopicMismatch
from clipper_agents.admin.topics import existing_topics
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

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
