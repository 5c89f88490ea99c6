"""Whether everything that was written was also finished: committed offsets against the ends of the topics."""

import asyncio
import time
from collections.abc import Iterable, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ModelManifest

AT_MOST_S = 20.0
"""Offsets are committed a few seconds after their records were finished."""
LOOK_S = 0.25


def input_topics(catalogue: Catalogue, models: Iterable[ModelManifest]) -> dict[str, str]:
    """Every topic that a worker reads, and the consumer group that reads it."""
    routers = dict.fromkeys((catalogue.queries, catalogue.feedback, catalogue.outputs), catalogue.router_group)
    hosts = {catalogue.requests(m.name, m.version): catalogue.host_group(m.name, m.version) for m in models}
    return routers | hosts


async def wait_committed(
    connection: KafkaConnection, topics: Mapping[str, str], at_most_s: float = AT_MOST_S
) -> dict[str, int]:
    """Wait until each group has committed the end of its topic.

    Args:
        connection: How to reach Kafka.
        topics: Consumer group by topic.
        at_most_s: Longest wait in seconds.

    Returns:
        Records that are not committed, by topic; empty when all are.
    """
    admin = AIOKafkaAdminClient(**connection.aiokafka())
    consumer = AIOKafkaConsumer(**connection.aiokafka(), enable_auto_commit=False)
    await admin.start()
    await consumer.start()
    try:
        ends_s = time.monotonic() + at_most_s
        while True:
            behind = await _behind(admin, consumer, topics)
            if not behind or time.monotonic() > ends_s:
                return behind
            await asyncio.sleep(LOOK_S)
    finally:
        await consumer.stop()
        await admin.close()


async def _behind(admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, topics: Mapping[str, str]) -> dict[str, int]:
    described = await admin.describe_topics(list(topics))
    partitions = [TopicPartition(each["topic"], part["partition"]) for each in described for part in each["partitions"]]
    ends = await consumer.end_offsets(partitions)
    committed: dict[TopicPartition, int] = {}
    for group in set(topics.values()):
        found = await admin.list_consumer_group_offsets(group)
        committed |= {tp: meta.offset for tp, meta in found.items() if topics.get(tp.topic) == group}
    behind: dict[str, int] = {}
    for tp, end in ends.items():
        # A partition that nobody wrote to has no commit: then its end is 0.
        missing = end - max(0, committed.get(tp, 0))
        if missing:
            behind[tp.topic] = behind.get(tp.topic, 0) + missing
    return behind
