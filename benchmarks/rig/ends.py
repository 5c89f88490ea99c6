"""The two topics of a run as the benchmark sees them: filled, watched by end offsets, read back."""

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from rig.backlog import INDEX_DIGITS, PARTITIONS, Backlog

from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

FILLING = {"acks": "all", "linger.ms": 20, "batch.size": 1_000_000, "queue.buffering.max.messages": 1_000_000}
TIMEOUT_S = 15.0


class _Model(msgspec.Struct):
    cached: bool = False


class Found(msgspec.Struct):
    """What is looked at in an answer, of whatever system."""

    query_id: str = ""
    id: str = ""
    output: Any = None
    outputs: list[Any] | None = None
    models: list[_Model] = []
    reason: str | None = None

    @property
    def labels(self) -> list[Any]:
        """One a row, also of a V2 response."""
        if self.outputs is None:
            return [self.output]
        return self.outputs[0]["data"] if self.id else self.outputs


_from_json, _from_msgpack = msgspec.json.Decoder(Found), msgspec.msgpack.Decoder(Found)


class Ends:
    """Queries in, predictions out.

    Args:
        connection: The broker.
        catalogue: The topics; they exist.
    """

    def __init__(self, connection: KafkaConnection, catalogue: Catalogue) -> None:
        self._client: dict[str, Any] = {**connection.librdkafka(), "log_level": 0}
        self._queries, self._predictions = catalogue.queries, catalogue.predictions
        self._admin = AdminClient(self._client)

    def fill(self, backlog: Backlog) -> None:
        """Write every query, and wait until all are acknowledged."""
        self.write(backlog, range(len(backlog.values)))

    def write(self, backlog: Backlog, queries: Iterable[int]) -> None:
        """Write these queries, by index.

        Raises:
            TimeoutError: not all were acknowledged in time.
        """
        producer = Producer({**self._client, **FILLING})
        for query in queries:
            value, key = backlog.values[query], backlog.ids[query]
            producer.produce(self._queries, value, key, query % PARTITIONS, headers=backlog.headers)
            if query % 1_000 == 0:
                producer.poll(0)
        if producer.flush(TIMEOUT_S):
            raise TimeoutError(f"not written: {len(producer)} queries")

    def predictions(self) -> int:
        """Records on the predictions topic: its end offsets, summed.

        Raises:
            KafkaException: the broker does not know the topic, `TIMEOUT_S` long.
        """
        latest = {TopicPartition(self._predictions, partition): OffsetSpec.latest() for partition in range(PARTITIONS)}
        give_up_s = time.monotonic() + TIMEOUT_S
        while True:
            try:
                return sum(found.result().offset for found in self._admin.list_offsets(latest).values())
            except KafkaException:  # of a topic made a moment ago
                if time.monotonic() > give_up_s:
                    raise

    def check(self, backlog: Backlog, cold: int) -> dict[str, Any]:
        """Read all predictions: missing, duplicates, wrong labels, default outputs, share answered from a cache.

        Args:
            backlog: What was asked.
            cold: So many queries at the beginning do not count for the cache: what they ask again is in flight.
        """
        label_of = dict(zip(backlog.ids, backlog.labels, strict=True))
        seen: Counter[str] = Counter()
        tally: Counter[str] = Counter()
        for found in self._read():
            query_id = found.query_id or found.id
            if query_id not in label_of:  # a probe
                continue
            seen[query_id] += 1
            tally["defaults"] += found.reason is not None
            tally["wrong"] += found.labels != label_of[query_id]
            if int(query_id[-INDEX_DIGITS:], 16) >= cold:
                tally["warm"] += 1
                tally["hits"] += bool(found.models) and all(model.cached for model in found.models)
        return {
            "missing": len(backlog.ids) - len(seen),
            "duplicates": seen.total() - len(seen),
            "wrong": tally["wrong"],
            "defaults": tally["defaults"],
            "hit_ratio": round(tally["hits"] / max(1, tally["warm"]), 4),
        }

    def _read(self) -> Iterable[Found]:
        consumer = Consumer({**self._client, "group.id": "check", "enable.partition.eof": True})
        consumer.assign([TopicPartition(self._predictions, partition, 0) for partition in range(PARTITIONS)])
        still_open, give_up_s = PARTITIONS, time.monotonic() + TIMEOUT_S
        while still_open and time.monotonic() < give_up_s:
            for record in consumer.consume(10_000, 1):
                if record.error():
                    still_open -= 1
                    continue
                value = record.value() or b""
                yield (_from_json if value.startswith(b"{") else _from_msgpack).decode(value)
        consumer.close()
