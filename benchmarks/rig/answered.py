"""Which queries were answered: partition, key and id of each, from the predictions topic."""

from confluent_kafka import Consumer, TopicPartition

from clipper_loadgen.answers import decode_answer
from clipper_topics.connection import KafkaConnection

Answered = tuple[int, bytes | None, str]
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


def answered_since(connection: KafkaConnection, topic: str, starts: list[int]) -> list[Answered]:
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


def _consumer(connection: KafkaConnection) -> Consumer:
    return Consumer({**connection.librdkafka(), "group.id": "benchmark", "enable.auto.commit": False})
