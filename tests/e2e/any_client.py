"""An application in any language: confluent-kafka, msgspec for msgpack, and nothing of this project."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

JSON = {"content-type": b"application/json"}
MSGPACK = {"content-type": b"application/msgpack"}
ELECTION = {
    *(KafkaError.OFFSET_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE),
    KafkaError._UNKNOWN_PARTITION,  # a node that has just begun has not told of all partitions
}
IMPATIENT = {"socket.timeout.ms": "5000", "topic.metadata.refresh.interval.ms": "1000"}
"""By default librdkafka waits 60 s for a frozen broker, and looks for new leaders every 5 min: then a stall
that a test measures is the client's, not the pipeline's."""

AS_JAVA = {"partitioner": "murmur2_random", "linger.ms": 0}
"""The partitioner of Java's client: librdkafka's own default is another one."""


@dataclass(frozen=True, kw_only=True)
class Record:
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes] = field(default_factory=dict)
    all_headers: Sequence[tuple[str, bytes | None]] = ()
    """Those that come twice, too."""
    timestamp_ms: int = 0

    @cached_property
    def content(self) -> Any:
        """The value, by its content type; a ValueError when it is not of that type."""
        if self.kind == "application/msgpack":
            try:
                return msgspec.msgpack.decode(self.value or b"", ext_hook=_no_extension)
            except (msgspec.DecodeError, RecursionError) as error:
                raise ValueError(f"no msgpack: {error!r}") from error
        if self.kind != "application/json":
            raise ValueError(f"content type {self.kind}")
        try:
            return json.loads((self.value or b"").decode(), parse_constant=_finite, parse_float=_finite)
        except RecursionError as error:
            raise ValueError("nested too deep") from error

    @property
    def kind(self) -> str:
        """Its content type: JSON unless the first header of that name says otherwise."""
        for name, value in self.all_headers or self.headers.items():
            if name.lower() == "content-type":
                return (value or b"").decode("utf-8", "replace").split(";")[0].strip().lower()
        return "application/json"


class AnyClient(AbstractContextManager["AnyClient"]):
    """Produces and consumes, with further settings of librdkafka; as a context manager it closes."""

    def __init__(self, bootstrap: str, settings: Mapping[str, str] | None = None) -> None:
        self.bootstrap = bootstrap
        self._settings = {"bootstrap.servers": bootstrap, **IMPATIENT, **(settings or {})}
        self._producer = Producer({**self._settings, **AS_JAVA, "message.max.bytes": 8_000_000})

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Mapping[str, bytes] | None = None,
        partition: int = -1,
        timestamp_ms: int = 0,
    ) -> Record:
        delivered: list[tuple[Any, Message]] = []
        self._producer.produce(
            topic, value, key, partition, on_delivery=lambda *told: delivered.append(told), timestamp=timestamp_ms,
            headers=list((headers or {}).items()),
        )  # fmt: skip
        self._producer.flush(60)
        error, message = delivered[0]
        assert error is None, error
        _, stored, offset = _place(message)
        return Record(topic=topic, partition=stored, offset=offset, key=key, value=value, headers=headers or {})

    def send_json(self, topic: str, content: Any, **options: Any) -> Record:
        return self.send(topic, json.dumps(content).encode(), **options)

    def read(self, topic: str) -> list[Record]:
        """Everything that the topic holds now, by partition in log order."""
        with Reading(self._settings, topic) as reading:
            return reading.to_the_end()

    def partitions(self, topic: str) -> int:
        return len(self._producer.list_topics(topic, timeout=60).topics[topic].partitions)

    def written(self, *topics: str) -> int:
        """How many records these topics have had, marks of transactions included; not before these are closed."""
        places = [TopicPartition(topic, number) for topic in topics for number in range(self.partitions(topic))]
        ends = dict.fromkeys(("committed", "uncommitted"), -1)
        while len({*ends.values()}) > 1 or -1 in ends.values():
            for level in ends:
                consumer = Consumer({**self._settings, "group.id": "nobody", "isolation.level": f"read_{level}"})
                ends[level] = sum(_end_of(consumer, one, lambda c=consumer: c.poll(0.1)) for one in places)
                consumer.close()
        return ends["committed"]

    def reading(self, topic: str, numbers: Sequence[int] | None = None) -> "Reading":
        """Read the topic, or some of its partitions, from its beginning on, for as long as it takes."""
        return Reading(self._settings, topic, numbers)

    def __exit__(self, *_: object) -> None:
        del self._producer


class Reading(AbstractContextManager["Reading"]):
    """Reads partitions of a topic, by default all, without a group; `records` is everything so far."""

    def __init__(self, settings: Mapping[str, str], topic: str, numbers: Sequence[int] | None = None) -> None:
        self.records: list[Record] = []
        own = {"group.id": "nobody", "isolation.level": "read_committed", "enable.auto.commit": False}
        self._consumer = Consumer({**settings, **own, "fetch.wait.max.ms": 50, "enable.partition.eof": True})
        found = numbers or [*self._consumer.list_topics(topic, timeout=60).topics[topic].partitions]
        self._partitions = [TopicPartition(topic, number, OFFSET_BEGINNING) for number in found]
        self._consumer.assign(self._partitions)
        self._next = dict.fromkeys(found, 0)

    def more(self, within_s: float = 0.1) -> list[Record]:
        fresh = []
        for message in self._consumer.consume(1000, within_s):
            error = message.error()
            if error is None:
                fresh.append(_record(message))
                self._next[fresh[-1].partition] = fresh[-1].offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                _, partition, end = _place(message)
                self._next[partition] = end  # behind a transaction, not behind the last record
        self.records += fresh
        return fresh

    def to_the_end(self) -> list[Record]:
        """Read on to where the topic ends now; every record so far."""
        ends = {tp.partition: _end_of(self._consumer, tp, self.more) for tp in self._partitions}
        self.until("the end of the topic", lambda _: all(self._next[number] >= end for number, end in ends.items()))
        return self.records

    def until(self, what: str, holds: Callable[[Sequence[Record]], Any], within_s: float = 120.0) -> list[Record]:
        """Read until the records so far fulfil the condition; every record so far."""
        end_s = time.monotonic() + within_s
        while not holds(self.records):
            assert time.monotonic() < end_s, f"not within {within_s:.0f} s: {what}"
            self.more()
        return self.records

    def __exit__(self, *_: object) -> None:
        self._consumer.close()


def _end_of(consumer: Consumer, tp: TopicPartition, wait: Callable[[], object], within_s: float = 60.0) -> int:
    """Where a partition ends; while its leader is elected, and just after that, nobody can say so."""
    end_s = time.monotonic() + within_s
    while True:
        try:
            return int(consumer.get_watermark_offsets(tp, timeout=within_s)[1])
        except KafkaException as error:
            if error.args[0].code() not in ELECTION or time.monotonic() > end_s:
                raise
            wait()


def _place(message: Message) -> tuple[str, int, int]:
    found: Any = message.topic(), message.partition(), message.offset()
    topic, partition, offset = found
    return topic, partition, offset


def _record(message: Message) -> Record:
    topic, partition, offset = _place(message)
    all_headers = [(name, None if value is None else bytes(value)) for name, value in message.headers() or []]
    headers = {name: value or b"" for name, value in all_headers}
    return Record(
        topic=topic, partition=partition, offset=offset, key=message.key(), value=message.value(), headers=headers,
        all_headers=all_headers, timestamp_ms=message.timestamp()[1],
    )  # fmt: skip


def _no_extension(code: int, _: memoryview) -> object:
    raise ValueError(f"msgpack extension type {code}")


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text} is no JSON, or out of range")
    return float(text)
