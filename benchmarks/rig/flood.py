"""Millions of queries, as fast as they are answered: a librdkafka producer that counts answers without reading them.

Rules of this file:
- Predictions are counted by where their topic ends; so a second answer to a query would count as another query's.
- A bounded number of queries is outstanding. The driver does nothing else, and keeps nothing about a query.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

LOOK_S = 0.02
"""Between two looks at the end of the predictions."""
STALLED_S = 30.0
LEADERLESS = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART)
LEADERLESS_S = 10.0
FLUSH_S = 60.0
PRODUCER = {"linger.ms": 2, "batch.size": 524_288, "queue.buffering.max.messages": 1_000_000, "acks": "all"}
FILLING = PRODUCER | {"linger.ms": 20, "batch.size": 1_000_000}
"""A backlog is written in large batches, so that the broker costs little when a system reads it."""

Record = tuple[int, bytes | None, bytes]
"""Partition, key and value."""


class TopicRecord(NamedTuple):
    """One record: where, and its bytes."""

    topic: str
    partition: int
    key: bytes | str | None
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()


class Stalled(RuntimeError):
    """Queries were outstanding and no answer came for `STALLED_S`."""


@dataclass(slots=True)
class Progress:
    """How far a flood is.

    Attributes:
        sent: Queries.
        answered: Predictions in the log since the flood began.
    """

    sent: int = 0
    answered: int = 0


class TopicEnd:
    """How much longer a topic has become since this was made: by records, and by markers of transactions."""

    def __init__(self, connection: KafkaConnection, topic: str, partitions: int) -> None:
        settings = {"group.id": "benchmark", "enable.auto.commit": False}
        self._consumer = Consumer({"bootstrap.servers": connection.bootstrap, **settings})
        self._partitions = [TopicPartition(topic, number) for number in range(partitions)]
        self._first = sum(self.ends())

    def grown(self) -> int:
        """Offsets since then."""
        return sum(self.ends()) - self._first

    def ends(self) -> list[int]:
        """One past the last record of each partition, now."""
        return [self._end_of(one) for one in self._partitions]

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _end_of(self, partition: TopicPartition) -> int:
        give_up_s = time.monotonic() + LEADERLESS_S
        while True:
            try:
                end: int = self._consumer.get_watermark_offsets(partition, timeout=10.0)[1]
                return end
            except KafkaException as error:  # a topic that was made a moment ago
                if error.args[0].code() not in LEADERLESS or time.monotonic() > give_up_s:
                    raise
                time.sleep(LOOK_S)


def produce_all(connection: KafkaConnection, topic: str, records: Iterator[Record]) -> int:
    """Write records to one topic as `produce` does."""
    return produce(connection, (TopicRecord(topic, partition, key, value) for partition, key, value in records))


def produce(connection: KafkaConnection, records: Iterable[TopicRecord]) -> int:
    """Write records as fast as the broker takes them; returns when all are acknowledged, with their number.

    Raises:
        TimeoutError: not all were acknowledged in time.
    """
    producer, count = Producer({"bootstrap.servers": connection.bootstrap, **FILLING}), 0
    for topic, partition, key, value, headers in records:
        while True:
            try:
                producer.produce(topic, value, key, partition, headers=list(headers))
            except BufferError:
                producer.poll(0.05)
            else:
                break
        count += 1
        if count % 1_000 == 0:
            producer.poll(0)
    if producer.flush(FLUSH_S):
        raise TimeoutError(f"not written: {len(producer)} records")
    return count


def flood(
    connection: KafkaConnection,
    catalogue: Catalogue,
    queries: Iterator[Record],
    headers: list[tuple[str, bytes]],
    *,
    outstanding: int,
    until_s: float,
    look: Callable[[Progress], None],
) -> Progress:
    """Send queries while fewer than `outstanding` wait for an answer.

    Args:
        connection: The broker.
        catalogue: The topics.
        queries: Each query's partition, key and value.
        headers: Of every query.
        outstanding: Most queries without an answer.
        until_s: Send nothing after this time of `time.monotonic`.
        look: Called about fifty times a second.

    Raises:
        Stalled: no answer came for long.
    """
    producer = Producer({"bootstrap.servers": connection.bootstrap, **PRODUCER})
    progress, ended, moved_s = Progress(), False, time.monotonic()
    with closing(TopicEnd(connection, catalogue.predictions, catalogue.partitions)) as end:
        while not ended or progress.answered < progress.sent:
            if not ended:
                ended = _send(producer, catalogue.queries, queries, headers, progress, outstanding)
            producer.poll(LOOK_S)
            now_s, answered = time.monotonic(), end.grown()
            if answered > progress.answered:
                progress.answered, moved_s = answered, now_s
            elif now_s - moved_s > STALLED_S:
                raise Stalled(f"no answer for {STALLED_S:.0f} s: {progress.sent} sent, {progress.answered} answered")
            look(progress)
            ended = ended or now_s > until_s
    return progress


def _send(
    producer: Producer, topic: str, queries: Iterator[Record], headers: list, progress: Progress, outstanding: int
) -> bool:
    """Fill up to `outstanding`; True when there are no more queries."""
    for _ in range(progress.answered + outstanding - progress.sent):
        record = next(queries, None)
        if record is None:
            return True
        partition, key, value = record
        producer.produce(topic, value, key, partition, headers=headers)
        progress.sent += 1
    return False
