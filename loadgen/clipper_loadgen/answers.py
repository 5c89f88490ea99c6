"""Answers in: predictions from now on, decoded no further than a load generator needs."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from clipper_stream.client.access import explained
from clipper_stream.errors import InvalidSetting
from clipper_topics.codec import MSGPACK, content_type
from clipper_topics.connection import KafkaConnection


class Answer(msgspec.Struct):
    """The fields of a prediction that are counted; the others are skipped, not decoded."""

    query_id: str
    default: bool = False
    reason: str | None = None


_json = msgspec.json.Decoder(Answer)
_msgpack = msgspec.msgpack.Decoder(Answer)
UNSTATED = "unstated"
"""Reason of a default answer that gives none."""


def decode_answer(value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> Answer | None:
    """The answer in a record; None for bytes that are no prediction."""
    decoder: Any = _msgpack if headers and content_type(headers) == MSGPACK else _json
    try:
        answer: Answer = decoder.decode(value or b"")
    except msgspec.MsgspecError:
        return None
    return answer


async def assigned_consumer(connection: KafkaConnection, topic: str, *, at_end: bool) -> AIOKafkaConsumer:
    """A started consumer of every partition of a topic, without a group.

    Args:
        connection: Where Kafka is.
        topic: The topic; it must exist.
        at_end: Its position is after the last record there is now, or else before the first.

    Raises:
        InvalidSetting: the topic does not exist.
        BrokerUnavailable: no broker answers.
        AccessRefused: Kafka does not let us in, or not read the topic.
    """
    try:
        return await _assigned(connection, topic, at_end=at_end)
    except KafkaError as error:
        raise await explained(connection, f"cannot read {topic}", error) from error


async def _assigned(connection: KafkaConnection, topic: str, *, at_end: bool) -> AIOKafkaConsumer:
    partitions = await _partitions(connection, topic)
    consumer = AIOKafkaConsumer(
        **connection.aiokafka(),
        enable_auto_commit=False,
        isolation_level="read_committed",  # manifests are written in transactions
        max_partition_fetch_bytes=4 << 20,
    )
    try:
        await consumer.start()
        consumer.assign(partitions)
        await (consumer.seek_to_end if at_end else consumer.seek_to_beginning)(*partitions)
        for partition in partitions:  # a position is resolved when asked for, and must be before the first query
            await consumer.position(partition)
    except BaseException:
        await consumer.stop()
        raise
    return consumer


async def _partitions(connection: KafkaConnection, topic: str) -> list[TopicPartition]:
    admin = AIOKafkaAdminClient(**connection.aiokafka())
    try:
        await admin.start()
        described = await admin.describe_topics([topic])
    finally:
        await admin.close()
    if any(found["error_code"] == TopicAuthorizationFailedError.errno for found in described):
        raise TopicAuthorizationFailedError(topic)
    partitions = [TopicPartition(topic, part["partition"]) for found in described for part in found["partitions"]]
    if not partitions:
        raise InvalidSetting(f"there is no topic {topic!r}: start the pipeline first, or give its prefix")
    return sorted(partitions)


async def read_answers(
    consumer: AIOKafkaConsumer, clock: Callable[[], float], on_answers: Callable[[list[Answer], float], None]
) -> None:
    """Read until cancelled.

    Args:
        consumer: Assigned to the predictions.
        clock: Seconds.
        on_answers: Called with the answers of one fetch and the time at which they were here.
    """
    while True:
        fetched = await consumer.getmany(timeout_ms=1_000)
        now_s = clock()
        for records in fetched.values():
            decoded = (decode_answer(record.value, record.headers) for record in records)
            on_answers([answer for answer in decoded if answer is not None], now_s)
