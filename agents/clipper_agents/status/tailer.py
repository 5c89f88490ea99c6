"""Reads a deployment's records into facts and figures: first what is there, then what comes.

Rules of this file:
- One plain consumer without a group: nothing is joined or committed, and no record is read twice.
- Compacted topics are read whole, the logs from the last minute on, and of that no more than the newest few thousand.
- A partition that cannot be read is named and not waited for: somebody who looks for a fault must see the rest.
- Whoever looks on all day reads a sample of the logs. Each topic has a budget of so many records a second, of which a
  second's worth is saved up: while that suffices, every record is read. Where it does not, each partition is read for
  its part of the budget, and on from where its log ended at the last fetch: what was read stands for what was skipped.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Self

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from clipper_agents.kafka.clients import translated_errors, unreachable
from clipper_agents.kafka.reader import FOLLOW_BYTES, FOLLOW_WAIT_S, LogReader, Range, Record
from clipper_agents.kafka.retry import STATUS
from clipper_agents.status.deployment_view import COMPARED_WITHIN_S, DeploymentView
from clipper_agents.status.traffic_window import LONGEST_S, TrafficWindow
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import UndecodableRecord
from clipper_topics.connection import KafkaConnection

CATCH_UP_S = 10.0
"""For the records of the last minute and the compacted topics: thousands of them, read in a second or two."""
LAST_RECORDS = 5_000
"""Of each partition of a log that are read back at first: a second's worth where there are so many."""
SAMPLE_EVERY_S = 0.5
"""Apart are two readings of a sample: figures are complete up to the one before."""
SAMPLE_FETCH_BYTES = 32 << 10
"""Of a partition: a sample is a few records of each."""


class DeploymentTailer:
    """Follows the topics of a deployment. An asynchronous context manager: it connects, and closes.

    With `sample_per_s` so many records a second are read of each log at most, and what they tell is scaled up; so many
    are read of the totals too, of which the last ones may be missing when many end at once.

    Attributes:
        facts: What is declared, changed and learned.
        recent: What flowed.
        refused: Topics that this user may not read.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        catalogue: Catalogue,
        *,
        last_records: int = LAST_RECORDS,
        sample_per_s: int | None = None,
    ) -> None:
        self.facts, self.recent = DeploymentView(), TrafficWindow()
        self._connection, self._catalogue = connection, catalogue
        self._sample_per_s, self._sampled_s = sample_per_s, 0.0
        self._sampler: LogSampler | None = None
        facts, recent = self.facts, self.recent
        self._logs = {catalogue.predictions, catalogue.audits, catalogue.feedback}
        self._folds: dict[str, Callable[[Record, float, float, float], None]] = {
            catalogue.predictions: lambda one, *at: recent.predicted(
                codec.predictions.decode(one.value, one.headers), *at
            ),
            catalogue.audits: lambda one, *at: recent.audited(codec.audits.decode(one.value, one.headers), *at),
            catalogue.feedback: lambda one, *at: recent.fed_back(
                codec.feedback.decode(one.value, one.headers).application or "", *at
            ),
            catalogue.control: lambda one, *_: facts.control(one.key, one.value, one.headers, one.offset),
            catalogue.hosts: lambda one, at_s, *_: facts.host(one.key, one.value, one.headers, at_s),
            catalogue.comparisons: lambda one, at_s, *_: facts.comparison(one.key, one.value, one.headers, at_s),
            catalogue.selection: lambda one, *_: facts.totals(one.key, one.value),
        }
        self._last_records = min(last_records, sample_per_s or last_records)
        self.refused: set[str] = set()
        self._cut: set[TopicPartition] = set()
        self._reader = LogReader(
            connection,
            policy=STATUS,
            fetch_bytes=FOLLOW_BYTES if sample_per_s is None else SAMPLE_FETCH_BYTES,
            fetch_wait_s=FOLLOW_WAIT_S,
        )

    async def __aenter__(self) -> Self:
        async with translated_errors(self._connection):
            await self._reader.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(KafkaError, OSError):
            await self._reader.close()

    @property
    def heard_s(self) -> float:
        """When a broker last answered, seconds since the epoch."""
        return self._reader.last_response_ms / 1000

    async def catch_up(self, existing: Iterable[TopicPartition]) -> list[str]:
        """Read what is there now, and return the names of topics that were not read to their end in time.

        `existing` are partitions that can be read; those of other topics are left alone.
        """
        found = [tp for tp in existing if tp.topic in self._folds]
        async with translated_errors(self._connection):
            there = await self._reader.ranges(found)
            starts = await self._starts(there, time.time())
            await self._reader.follow(starts, {tp: one.end for tp, one in there.items()})
        end_s = time.monotonic() + CATCH_UP_S
        while (behind := self._reader.behind) and time.monotonic() < end_s:
            await self.poll()
        if self._sample_per_s is not None:
            sampled = self._logs | {self._catalogue.selection}  # of totals, a later record says what a skipped one did
            self._sampler = LogSampler(self._reader, sampled, self._sample_per_s)
            self._sampled_s = time.time()
        return sorted({tp.topic for tp in behind})

    async def poll(self, within_s: float = FOLLOW_WAIT_S) -> None:
        """Read what has come, or wait so long for it. A topic that may not be read is left out from then on."""
        try:
            fetched = await self._fetched(within_s)
        except TopicAuthorizationFailedError as error:
            await self._without({str(topic) for topic in error.args} & self._folds.keys())
            return
        except KafkaError as error:
            raise await unreachable(self._connection, error) from error
        now_s = time.time()
        for tp, records, weight in fetched:
            if tp in self._cut and records:  # whole from its first record on
                self._cut.remove(tp)
                self.recent.since_s = max(self.recent.since_s, min(records[0].timestamp / 1000, now_s))
            for record in records:
                with suppress(UndecodableRecord):  # routers put it on the dead letters, and `status` counts those
                    self._folds[record.topic](record, record.timestamp / 1000, now_s, weight)
        self.recent.forget(now_s)

    async def _fetched(self, within_s: float) -> Sequence[tuple[TopicPartition, Sequence[Record], float]]:
        if self._sampler is None:
            return [(tp, records, 1) for tp, records in (await self._reader.fetch(wait_s=within_s)).items()]
        left_s = SAMPLE_EVERY_S - time.time() % SAMPLE_EVERY_S
        await asyncio.sleep(min(left_s, within_s))
        if left_s > within_s:
            return ()
        found = await self._sampler.read(time.monotonic())
        self.recent.until_s, self._sampled_s = self._sampled_s, time.time()
        return found

    # --- where to begin ---------------------------------------------------------------------------------------------
    async def _starts(self, there: Mapping[TopicPartition, Range], now_s: float) -> dict[TopicPartition, int]:
        logs = [tp for tp in there if tp.topic in self._logs]
        timed = await self._reader.offsets_at(logs, int((now_s - LONGEST_S) * 1000))
        compared = [tp for tp in there if tp.topic == self._catalogue.comparisons]
        fresh = await self._reader.offsets_at(compared, int((now_s - COMPARED_WITHIN_S) * 1000))
        starts: dict[TopicPartition, int] = {}
        for tp, (oldest, end) in there.items():
            starts[tp] = fresh.get(tp, end) if tp in compared else oldest
            if tp in logs:
                first = timed.get(tp, end)
                starts[tp] = max(first, end - self._last_records)
                if starts[tp] > first:
                    self._cut.add(tp)
        return starts

    async def _without(self, refused: set[str]) -> None:
        self.refused |= refused
        reader = self._reader
        left = {tp: offset for tp, offset in reader.positions.items() if tp.topic not in refused}
        await reader.follow(left, {tp: reader.ends[tp] for tp in left})


class LogSampler:
    """Reads topics as far as their budgets go, and whatever else the reader has assigned whole."""

    def __init__(self, reader: LogReader, topics: Iterable[str], per_s: int) -> None:
        self._reader, self._per_s = reader, per_s
        self._budgets = dict.fromkeys(topics, float(per_s))
        self._skipped: Counter[TopicPartition] = Counter()
        """Offsets that no record stands for yet."""
        self._at_s = 0.0

    async def read(self, now_s: float) -> list[tuple[TopicPartition, Sequence[Record], float]]:
        """What was fetched of each partition, in log order, and for how many records each of these stands."""
        reader, starts = self._reader, dict(self._reader.positions)
        earned, self._at_s = self._per_s * min(1.0, now_s - self._at_s), now_s
        self._budgets = {topic: min(self._per_s, left + earned) for topic, left in self._budgets.items()}
        ends = {tp: reader.known_end(tp) for tp in starts if tp.topic in self._budgets}
        parts = self._parts({tp: end - starts[tp] for tp, end in ends.items() if end > starts[tp]})
        fetched = await reader.fetch(starts.keys() - parts.keys(), wait_s=0)
        for tp, most in parts.items():
            if most > 0:
                fetched |= await reader.fetch([tp], max_records=most, wait_s=0)
            if (skipped := ends[tp] - reader.positions[tp]) > 0:
                reader.skip_to(tp, ends[tp])
                self._skipped[tp] += skipped
        return [(tp, records, self._weight(tp, records, starts[tp])) for tp, records in fetched.items()]

    def _parts(self, ahead: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """How many records to read of each partition of the topics whose budget does not suffice for all."""
        wanted: Counter[str] = Counter()
        for tp, offsets in ahead.items():
            wanted[tp.topic] += offsets
        shares = {topic: self._budgets[topic] / offsets for topic, offsets in wanted.items()}
        return {tp: math.ceil(shares[tp.topic] * offsets) for tp, offsets in ahead.items() if shares[tp.topic] < 1}

    def _weight(self, tp: TopicPartition, records: Sequence[Record], start: int) -> float:
        if tp.topic in self._budgets:
            self._budgets[tp.topic] -= len(records)
        offsets: int = records[-1].offset + 1 - start
        return 1 + self._skipped.pop(tp, 0) / offsets
