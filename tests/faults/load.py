"""Queries at a rate, whatever becomes of them, and answers by the million, in arrays instead of records."""

import json
import threading
import time
import zlib
from array import array
from collections import Counter
from typing import Any, Self

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from faults.deployment import Deployment
from faults.verdict import Place, Verdict
from numpy.typing import NDArray

SLICE_S = 0.01
RECORDS = 10_000
SILENCE_S = 30.0
"""When nothing more comes for so long, nothing more will."""


def producer(deployment: Deployment) -> Producer:
    usual = {"linger.ms": 5, "partitioner": "murmur2_random", "message.max.bytes": 2_000_000}
    return Producer({"bootstrap.servers": deployment.client.bootstrap, **usual})


class Asking:
    """Asks for an application at a rate, for the time of the block.

    Args:
        value: What is sent instead of a query that can be answered.
        partition: Where all of it goes; absent: anywhere.
    """

    def __init__(
        self, deployment: Deployment, application: str, per_s: float, value: bytes = b"", partition: int = -1
    ) -> None:
        self.asked, self._per_s, self._partition = 0, per_s, partition
        self._producer, self._topic = producer(deployment), deployment.catalogue.queries
        self._value = value or b'{"application": "%s", "input": [1, 2, 3]}' % application.encode()
        self._over, self._thread = threading.Event(), threading.Thread(target=self._ask)

    def _ask(self) -> None:
        began_s = time.monotonic()
        while not self._over.wait(SLICE_S):
            due = int((time.monotonic() - began_s) * self._per_s)
            while self.asked < due:
                try:
                    self._producer.produce(self._topic, self._value, partition=self._partition)
                except BufferError:  # the broker is slower than we are: so be it
                    self._producer.poll(0.1)
                else:
                    self.asked += 1
            self._producer.poll(0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        assert self._producer.flush(60) == 0


class Tally:
    """Reads a deployment's predictions (JSON) from their beginning.

    Attributes:
        answered: How many queries have an answer.
        reasons: Default answers by reason, each query once.
        explained: Whether every default came with an explanation.
        differing: Queries with two answers that are not the same bytes.
    """

    def __init__(self, deployment: Deployment) -> None:
        client, catalogue = deployment.client, deployment.catalogue
        alone = {"group.id": "nobody", "enable.auto.commit": False, "fetch.wait.max.ms": 50}
        self._consumer, self._queries = Consumer({"bootstrap.servers": client.bootstrap, **alone}), catalogue.queries
        partitions = range(catalogue.partitions)
        self._consumer.assign([TopicPartition(catalogue.predictions, each, OFFSET_BEGINNING) for each in partitions])
        self._sums = {number: array("q") for number in partitions}
        self._asked = dict.fromkeys(partitions, 0)
        self._queried_at_s, self._latency_ms, self._default = array("d"), array("d"), array("b")
        self.answered, self.explained = 0, True
        self.reasons, self.differing = Counter[str](), set[Place]()

    @property
    def lost(self) -> frozenset[Place]:
        return frozenset(
            (partition, offset)
            for partition, asked in self._asked.items()
            for offset in range(asked)
            if offset >= len(self._sums[partition]) or self._sums[partition][offset] < 0
        )

    def verdict(self) -> Verdict:
        """For the report; feedback is no part of it."""
        differing = dict.fromkeys(self.differing, (0.0, 0.0))
        return Verdict(queries=sum(self._asked.values()), lost=self.lost, differing=differing)

    def read_to(self, answers: int, within_s: float = 900.0) -> None:
        """Read on until so many queries are answered."""
        end_s = time.monotonic() + within_s
        while self.answered < answers:
            assert time.monotonic() < end_s, f"{answers - self.answered} answers are missing"
            self._read()

    def read_all(self) -> None:
        """Read on until every query that there is now is answered, or nothing comes any more."""
        for partition in self._asked:
            _, self._asked[partition] = self._consumer.get_watermark_offsets(TopicPartition(self._queries, partition))
        heard_s = time.monotonic()
        while self.answered < sum(self._asked.values()) and time.monotonic() < heard_s + SILENCE_S:
            if self._read():
                heard_s = time.monotonic()

    def p99_ms(self, since_s: float, until_s: float) -> float:
        """Of the queries of this time, by their timestamps."""
        at_s = np.array(self._queried_at_s)
        return float(np.percentile(np.array(self._latency_ms)[(at_s >= since_s) & (at_s < until_s)], 99))

    def usual_p99_ms(self, since_s: float, until_s: float) -> float:
        """The median of the 99th percentiles of its seconds: a pause of the machine is in one or two of them."""
        seconds = np.arange(since_s, until_s - 1.0)
        return float(np.median([self.p99_ms(at_s, at_s + 1.0) for at_s in seconds]))

    def abnormal(self, since_s: float, bound_ms: float) -> tuple[int, int]:
        """How many queries of the time from here on were later than the bound, or had a default; and of how many."""
        latency_ms = np.array(self._latency_ms)[(since := np.array(self._queried_at_s) >= since_s)]
        bad = (latency_ms > bound_ms) | np.array(self._default, dtype=bool)[since]
        return int(bad.sum()), len(bad)

    def is_default(self, since_s: float, until_s: float) -> NDArray[np.bool_]:
        at_s = np.array(self._queried_at_s)
        return np.array(self._default, dtype=bool)[(at_s >= since_s) & (at_s < until_s)]

    def _read(self) -> bool:
        messages = [one for one in self._consumer.consume(RECORDS, 0.2) if one.error() is None]
        for message in messages:
            value = message.value() or b""
            content = json.loads(value)
            if self._is_first((message.partition() or 0, content["query_offset"]), zlib.crc32(value)):
                self._enter(content)
        return bool(messages)

    def _is_first(self, place: Place, total: int) -> bool:
        sums, offset = self._sums[place[0]], place[1]
        sums.extend([-1] * (offset + 1 - len(sums)))
        if sums[offset] >= 0 and sums[offset] != total:
            self.differing.add(place)
        first = sums[offset] < 0
        sums[offset] = total
        return first

    def _enter(self, content: dict[str, Any]) -> None:
        default = bool(content.get("default"))
        self.answered += 1
        self._queried_at_s.append(content["queried_at_ms"] / 1e3)
        self._latency_ms.append(content["latency_ms"])
        self._default.append(default)
        if default:
            self.reasons[str(content["reason"])] += 1
            self.explained &= bool(content.get("explanation"))
