"""What stands on the predictions topic: which queries were answered, how, and by whom."""

from collections.abc import Callable
from typing import Any

import msgspec
from confluent_kafka import Consumer, Message, TopicPartition
from rig.systems import Place

from clipper_loadgen.run import decode_answer
from clipper_stream.client.kafka import assigned_consumer
from clipper_topics import codec
from clipper_topics.connection import KafkaConnection

QUIET_MS = 1_000
AnsweredQuery = tuple[int, bytes | None, str]
"""Partition, key and query id."""


def ends_of(connection: KafkaConnection, topic: str, partitions: int) -> list[int]:
    """One past the last record of each partition, now."""
    consumer = _consumer(connection)
    try:
        return [
            consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10.0)[1]
            for number in range(partitions)
        ]
    finally:
        consumer.close()


def answered_since(connection: KafkaConnection, topic: str, starts: list[int]) -> list[AnsweredQuery]:
    """The queries whose answers stand at these offsets or later."""
    wanted = sum(ends_of(connection, topic, len(starts))) - sum(starts)
    consumer, found = _consumer(connection), []
    try:
        consumer.assign([TopicPartition(topic, number, start) for number, start in enumerate(starts)])
        while len(found) < wanted:
            records = consumer.consume(min(10_000, wanted - len(found)), timeout=10.0)
            assert records, f"{len(found)} of {wanted} answers could be read"
            for record in records:
                answer = decode_answer(record.value(), record.headers() or ())
                assert answer is not None, "a record of the predictions topic is no prediction"
                found.append((record.partition(), record.key(), answer.query_id))
    finally:
        consumer.close()
    return found


def default_ratio_of_last(connection: KafkaConnection, topic: str, count: int = 1_000) -> float:
    """Share of defaults among the last answers of partition 0: what was counted is to be predictions."""
    records = last_records(connection, topic, count)
    answers = [decode_answer(record.value(), record.headers() or ()) for record in records]
    return sum(answer is None or answer.default for answer in answers) / max(1, len(records))


def last_records(connection: KafkaConnection, topic: str, count: int = 1_000) -> list[Message]:
    """The last records of partition 0, so many if there are."""
    consumer = _consumer(connection)
    try:
        first, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10.0)
        consumer.assign([TopicPartition(topic, 0, max(first, end - count))])
        wanted = min(count, end - first)
        records = consumer.consume(wanted, timeout=10.0)
    finally:
        consumer.close()
    assert len(records) == wanted, f"{len(records)} of {wanted} records could be read"
    return records


def asked_ratio(connection: KafkaConnection, topic: str, model: str, count: int = 1_000) -> float:
    """Share of the last answers of partition 0 for which this model was asked."""
    records = last_records(connection, topic, count)
    answers = [codec.predictions.decode(record.value(), record.headers() or ()) for record in records]
    return sum(any(asked.model == model for asked in answer.models) for answer in answers) / max(1, len(answers))


class DecisionFields(msgspec.Struct):
    """The fields of a prediction that are counted."""

    query_id: str
    application: str
    output: Any = None
    default: bool = False
    models: list[Any] = []
    missing: list[Any] = []


_decode = msgspec.json.Decoder(DecisionFields).decode


async def decisions(place: Place, wanted: Callable[[DecisionFields], bool]) -> list[DecisionFields]:
    """All predictions on the topic that are wanted, read from the beginning until it is quiet."""
    topic = place.catalogue.predictions
    consumer = await assigned_consumer(place.connection, topic, at_end=False, isolation_level="read_committed")
    found: list[DecisionFields] = []
    try:
        while fetched := await consumer.getmany(timeout_ms=QUIET_MS):
            read = (_decode(record.value) for records in fetched.values() for record in records)
            found += [one for one in read if wanted(one)]
    finally:
        await consumer.stop()
    return found


def shares(found: list[DecisionFields], right: Any) -> dict[str, float | None]:
    """Share of model answers that were missing, of defaults, and of right outputs, over all the predictions."""
    asked = sum(len(one.models) + len(one.missing) for one in found)
    return {
        "missing_ratio": round(sum(len(one.missing) for one in found) / asked, 5) if asked else None,
        "accuracy": round(sum(one.output == right for one in found) / len(found), 5) if found else None,
    }


def _consumer(connection: KafkaConnection) -> Consumer:
    return Consumer({**connection.librdkafka(), "group.id": "benchmark", "enable.auto.commit": False})
