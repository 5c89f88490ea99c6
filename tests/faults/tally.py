"""Answers by the million: which queries have one, and how late it was, in arrays instead of records."""

import json
import time
import zlib
from array import array
from collections import Counter
from typing import Any

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from faults.verdict import Place, Verdict
from numpy.typing import NDArray

RECORDS = 10_000
SILENCE_S = 30.0
"""When nothing more comes for so long, nothing more will."""


class Tally:
    """Reads a predictions topic (JSON) from its beginning.

    Attributes:
        answered: How many queries have an answer.
        reasons: Default answers by reason, each query once.
        explained: Whether every default came with an explanation.
        differing: Queries with two answers that are not the same bytes.
    """

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "nobody", "enable.auto.commit": False, "fetch.wait.max.ms": 50}
        )
        partitions = self._consumer.list_topics(topic, timeout=60).topics[topic].partitions
        self._consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        self._sums = {number: array("q") for number in partitions}
        self._asked = dict.fromkeys(partitions, 0)
        self._queried_at_s, self._latency_ms, self._default = array("d"), array("d"), array("b")
        self.answered = 0
        self.reasons: Counter[str] = Counter()
        self.explained = True
        self.differing: set[Place] = set()

    @property
    def lost(self) -> frozenset[Place]:
        """Queries without an answer."""
        return frozenset(
            (partition, offset)
            for partition, asked in self._asked.items()
            for offset in range(asked)
            if offset >= len(self._sums[partition]) or self._sums[partition][offset] < 0
        )

    def verdict(self) -> Verdict:
        """For the report; feedback is no part of it."""
        return Verdict(
            queries=sum(self._asked.values()),
            answers=(),
            lost=self.lost,
            differing=dict.fromkeys(self.differing, (0.0, 0.0)),
            double_counted=0,
            uncounted=0,
            rows_differing={},
            applied=Counter(),
            audits=(),
            unaudited=frozenset(),
        )

    def read_to(self, answers: int, within_s: float = 900.0) -> None:
        """Read on until so many queries are answered."""
        end_s = time.monotonic() + within_s
        while self.answered < answers:
            assert time.monotonic() < end_s, f"{answers - self.answered} answers are missing"
            self._read()

    def read_all(self, queries: str) -> None:
        """Read on until every query that the topic holds now is answered, or nothing comes any more."""
        for partition in self._asked:
            _, self._asked[partition] = self._consumer.get_watermark_offsets(TopicPartition(queries, partition))
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
        """Of each query of this time."""
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
