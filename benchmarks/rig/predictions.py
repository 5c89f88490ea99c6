"""What stands on the predictions topic: which queries were answered, how, and by whom."""

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from rig.flood import TopicEnd
from rig.systems import Place

from clipper_loadgen.run import decode_answer
from clipper_topics import codec
from clipper_topics.connection import KafkaConnection

AnsweredQuery = tuple[int, bytes | None, str]
"""Partition, key and query id."""

LOOK_BACK = 100
"""Offsets without a record that may stand before the end of a partition: the markers of transactions."""
SILENT_S = 10.0
"""So long without a record, and the end of a partition will not come."""


def ends_of(connection: KafkaConnection, topic: str, partitions: int) -> list[int]:
    """One past the last record of each partition, now."""
    with closing(TopicEnd(connection, topic, partitions)) as end:
        return end.ends()


def records_from(connection: KafkaConnection, topic: str, starts: Sequence[int]) -> list[Message]:
    """The records of each partition from these offsets on, up to its present end."""
    unread, found = set(range(len(starts))), list[Message]()
    settings = {"group.id": "benchmark", "enable.auto.commit": False, "enable.partition.eof": True}
    with closing(Consumer({"bootstrap.servers": connection.bootstrap, **settings})) as consumer:
        consumer.assign([TopicPartition(topic, number, start) for number, start in enumerate(starts)])
        last_s = time.monotonic()
        while unread:
            # it returns when it has as many as asked for, or has waited as long
            records = consumer.consume(10_000, timeout=0.1)
            last_s = time.monotonic() if records else last_s
            assert time.monotonic() - last_s < SILENT_S, f"partitions {unread} could not be read to their ends"
            ends = [one for one in records if one.error()]
            assert all(one.error().code() == KafkaError._PARTITION_EOF for one in ends)  # noqa: SLF001
            unread -= {one.partition() for one in ends}
            found += [one for one in records if not one.error()]
    return found


def answered_since(connection: KafkaConnection, topic: str, starts: Sequence[int]) -> list[AnsweredQuery]:
    """The queries whose answers stand at these offsets or later."""
    found = []
    for record in records_from(connection, topic, starts):
        answer = decode_answer(record.value(), record.headers() or ())
        assert answer is not None, "a record of the predictions topic is no prediction"
        found.append((record.partition(), record.key(), answer.query_id))
    return found


def is_default(record: Message) -> bool:
    """Whether a record is a default answer, or none at all: what was counted is to be predictions."""
    answer = decode_answer(record.value(), record.headers() or ())
    return answer is None or answer.default


def default_ratio_of_last(connection: KafkaConnection, topic: str) -> float:
    """Share of defaults among the last answers of partition 0."""
    records = last_records(connection, topic)
    return sum(map(is_default, records)) / max(1, len(records))


def last_records(connection: KafkaConnection, topic: str, count: int = 1_000) -> list[Message]:
    """The last records of partition 0, so many if there are."""
    end = ends_of(connection, topic, 1)[0]
    return records_from(connection, topic, [max(0, end - count - LOOK_BACK)])[-count:]


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


_decode = codec.Codec(DecisionFields).decode


def decisions(place: Place) -> list[DecisionFields]:
    """All predictions on the topic, in which nothing else is written any more."""
    starts = [0] * place.catalogue.partitions
    records = records_from(place.connection, place.catalogue.predictions, starts)
    return [_decode(record.value(), record.headers() or ()) for record in records]


def shares(found: list[DecisionFields], right: Any) -> dict[str, float | None]:
    """Share of model answers that were missing, of defaults, and of right outputs, over all the predictions."""
    asked = sum(len(one.models) + len(one.missing) for one in found)
    return {
        "missing_ratio": round(sum(len(one.missing) for one in found) / asked, 5) if asked else None,
        "accuracy": round(sum(one.output == right for one in found) / len(found), 5) if found else None,
    }
