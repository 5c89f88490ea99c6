"""The consumers and producers of an ordinary client of the topics: no group, no transaction, no idempotence."""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from clipper_stream.client.access import explained
from clipper_stream.errors import InvalidSetting
from clipper_topics.connection import KafkaConnection

AnyClient: TypeAlias = AIOKafkaConsumer | AIOKafkaProducer | AIOKafkaAdminClient | AIOKafkaClient

MAX_BATCH_BYTES = 512 * 1024
"""A call that finds the open batch full waits with all others like it, and each wakes at every batch: few is cheap."""


def make_producer(kafka: KafkaConnection, **options: Any) -> AIOKafkaProducer:
    """A producer without linger that waits for all in-sync replicas; it is to be started.

    Not idempotent: a record repeated after a lost acknowledgement has the same query id, and counts once. The options
    are further arguments of `AIOKafkaProducer`.
    """
    return AIOKafkaProducer(**kafka.aiokafka(), linger_ms=0, acks="all", max_batch_size=MAX_BATCH_BYTES, **options)


async def consumer_at_end(
    kafka: KafkaConnection, topic: str, *, partitions: int | None = None, max_partition_fetch_bytes: int = 1 << 20
) -> AIOKafkaConsumer:
    """A started consumer of every partition of a topic, behind the last record that there is now.

    Without a number of partitions Kafka is asked for it.

    Raises:
        InvalidSetting: the topic does not exist.
        BrokerUnavailable: no broker answers.
        AccessRefused: Kafka does not let us in, or not read the topic.
    """
    try:
        numbers = range(partitions) if partitions is not None else await _partition_numbers(kafka, topic)
        consumer = AIOKafkaConsumer(
            **kafka.aiokafka(),
            client_rack=kafka.rack,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="latest",  # what is read twice, or is older than the client, answers nobody
            max_partition_fetch_bytes=max_partition_fetch_bytes,
        )
        try:
            await consumer.start()
            assigned = [TopicPartition(topic, number) for number in numbers]
            consumer.assign(assigned)
            await consumer.seek_to_end(*assigned)
            for partition in assigned:  # a position is resolved when asked for, and must be before the first query
                await consumer.position(partition)
        except BaseException:
            await stop(consumer)
            raise
    except (KafkaError, OSError) as error:
        raise await explained(kafka, f"cannot read {topic}", error) from error
    return consumer


async def stop(client: AnyClient) -> None:
    """Stop a client of aiokafka, also one whose start failed; a cancellation of the caller is raised when it is done.

    It has a task of its own, as aiokafka 0.14 swallows a cancellation of the task in which it stops, which would go on
    as if nothing had been. While Kafka is down a consumer raises CancelledError halfway, before it disconnects.
    """
    stopping = asyncio.ensure_future(_stop(client))
    try:
        await asyncio.wait([stopping])
    finally:
        await asyncio.wait([stopping])
    if not stopping.cancelled():
        stopping.result()
    elif isinstance(client, AIOKafkaConsumer):
        await client._client.close()  # noqa: SLF001 the second half of `stop`, which there is no other way to reach


async def _stop(client: AnyClient) -> None:
    await asyncio.sleep(0)  # a task of aiokafka's that has not begun cannot be ended
    await (client.stop() if isinstance(client, (AIOKafkaConsumer, AIOKafkaProducer)) else client.close())


async def _partition_numbers(kafka: KafkaConnection, topic: str) -> Sequence[int]:
    admin = AIOKafkaAdminClient(**kafka.aiokafka())
    try:
        await admin.start()
        described = await admin.describe_topics([topic])
    finally:
        await stop(admin)
    if any(found["error_code"] == TopicAuthorizationFailedError.errno for found in described):
        raise TopicAuthorizationFailedError(topic)
    numbers = sorted(part["partition"] for found in described for part in found["partitions"])
    if not numbers:
        raise InvalidSetting(f"there is no topic {topic!r}: start the pipeline first, or give its prefix")
    return numbers
