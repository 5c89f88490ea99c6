"""Selection rows for many contexts, as a router leaves them that has learned in each: in the table's changelog.

Learning a million rows from feedback would take minutes; a router that starts reads them from here, and cannot tell the
difference. Each row says that one model was always right and the other always wrong, so that decisions show it.
"""

from collections.abc import Iterator
from typing import Any

from aiokafka.partitioner import murmur2
from confluent_kafka import Consumer, TopicPartition
from rig.flood import Record

from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.selection_rows import ROW_VERSION, ModelTotalsRecord, RowKey, SelectionRow, encode_key, encode_row

FEEDBACKS = 200.0
"""In each context: enough for a policy to be sure."""


def learned_rows(application: str, right: str, wrong: str, count: int, partitions: int) -> Iterator[Record]:
    """The rows of contexts `c0`, `c1`, ..., as the load generator names them.

    Args:
        application: Its name.
        right: Model that never had a loss.
        wrong: Model that always had one.
        count: Number of contexts.
        partitions: Of the queries.
    """
    totals = [_totals(right, 0.0), _totals(wrong, FEEDBACKS)]
    row = encode_row(SelectionRow(version=ROW_VERSION, offset=0, applied=int(FEEDBACKS), totals=totals))
    for number in range(count):
        context = f"c{number}"
        partition = (murmur2(context.encode()) & 0x7FFFFFFF) % partitions
        yield partition, encode_key(RowKey(application, context, partition)), row


def _totals(model: str, loss: float) -> ModelTotalsRecord:
    return ModelTotalsRecord(model=model, count=FEEDBACKS, loss=loss, weighted_loss=loss, weighted_count=FEEDBACKS)


def asked_ratio(connection: KafkaConnection, catalogue: Catalogue, model: str, count: int = 1_000) -> float:
    """Share of the last answers of partition 0 for which this model was asked."""
    topic: Any = catalogue.predictions
    consumer = Consumer({**connection.librdkafka(), "group.id": "benchmark", "enable.auto.commit": False})
    try:
        first, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10.0)
        consumer.assign([TopicPartition(topic, 0, max(first, end - count))])
        records = consumer.consume(min(count, end - first), timeout=10.0)
    finally:
        consumer.close()
    answers = [codec.predictions.decode(record.value(), record.headers() or ()) for record in records]
    return sum(any(asked.model == model for asked in answer.models) for answer in answers) / max(1, len(answers))
