"""Reads a deployment's records into facts and figures: first what is there, then what comes.

Rules of this file:
- One plain consumer without a group: nothing is joined or committed, and no record is read twice.
- Compacted topics are read whole, the logs from the last minute on, and of that no more than the newest few thousand.
- A partition that cannot be read is named and not waited for: somebody who looks for a fault must see the rest.
"""

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from clipper_agents.kafka.clients import translated_errors, unreachable
from clipper_agents.kafka.reader import Range, Record
from clipper_agents.kafka.retry import STATUS
from clipper_agents.kafka.tailer import POLL_S, TopicTailer
from clipper_agents.status.deployment_view import DeploymentView
from clipper_agents.status.traffic_window import LONGEST_S, TrafficWindow
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import UndecodableRecord
from clipper_topics.connection import KafkaConnection

CATCH_UP_S = 10.0
"""For the records of the last minute and the compacted topics: thousands of them, read in a second or two."""
LAST_RECORDS = 5_000
"""Of each partition of a log that are read back at first: a second's worth where there are so many."""
LAST_ROWS = 5_000
"""Of each partition of the selection changelog, which may be gigabytes long between two compactions."""


class DeploymentTailer:
    """Follows the topics of a deployment. An asynchronous context manager: it connects, and closes.

    For the totals of a `context` the changelog is read whole; without `contexts` it is not read at all.

    Attributes:
        facts: What is declared, changed and learned.
        recent: What flowed.
        refused: Topics that this user may not read.

    Raises:
        KafkaUnreachable: no broker answers.
        AccessRefused: Kafka does not let us in.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        catalogue: Catalogue,
        *,
        context: str | None = None,
        contexts: bool = True,
        last_records: int = LAST_RECORDS,
        last_rows: int = LAST_ROWS,
    ) -> None:
        self.facts, self.recent = DeploymentView(contexts_read=contexts or context is not None), TrafficWindow()
        self._connection, self._catalogue = connection, catalogue
        self._logs = {catalogue.predictions, catalogue.audits, catalogue.feedback}
        self._context, self._last_records, self._last_rows = context, last_records, last_rows
        self.refused: set[str] = set()
        self._cut: set[TopicPartition] = set()
        self._tailer = TopicTailer(connection, isolation_level="read_committed", policy=STATUS)

    async def __aenter__(self) -> Self:
        async with translated_errors(self._connection):
            await self._tailer.reader.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        with suppress(KafkaError, OSError):
            await self._tailer.close()

    async def catch_up(self, existing: Iterable[TopicPartition]) -> list[str]:
        """Read what is there now, and return the names of topics that were not read to their end in time.

        `existing` are partitions that can be read; those of other topics are left alone.

        Raises:
            KafkaUnreachable: the brokers do not say what they hold.
        """
        found = [tp for tp in existing if tp.topic in self._topics()]
        async with translated_errors(self._connection):
            there = await self._tailer.reader.ranges(found)
            starts = await self._starts(there, time.time())
            await self._tailer.begin_at(starts, {tp: one.end for tp, one in there.items()})
        end_s = time.monotonic() + CATCH_UP_S
        while (behind := self._tailer.behind) and time.monotonic() < end_s:
            await self.poll()
        return sorted({tp.topic for tp in behind})

    async def poll(self, within_s: float = POLL_S) -> None:
        """Read what has come, or wait so long for it. A topic that may not be read is left out from then on.

        Raises:
            KafkaUnreachable: what a broker gave is no log; one that is away is waited for.
        """
        try:
            fetched = await self._tailer.poll(wait_s=within_s)
        except TopicAuthorizationFailedError as error:
            await self._without({str(topic) for topic in error.args} & self._topics())
            return
        except KafkaError as error:
            raise await unreachable(self._connection, error) from error
        now_s = time.time()
        for tp, records in fetched.items():
            for record in records:
                self._take(tp.topic, record, now_s)
        self.recent.forget(now_s)

    # --- where to begin ---------------------------------------------------------------------------------------------
    def _topics(self) -> set[str]:
        topics = self._catalogue
        compacted = {topics.control, topics.hosts, topics.selection}
        return self._logs | compacted | ({topics.selection_changelog} if self.facts.contexts_read else set())

    async def _starts(self, there: Mapping[TopicPartition, Range], now_s: float) -> dict[TopicPartition, int]:
        logs = [tp for tp in there if tp.topic in self._logs]
        timed = await self._tailer.reader.offsets_at(logs, int((now_s - LONGEST_S) * 1000))
        changelog = None if self._context is not None else self._catalogue.selection_changelog
        starts: dict[TopicPartition, int] = {}
        for tp, (oldest, end) in there.items():
            starts[tp] = oldest
            if tp in logs:
                first = timed.get(tp, end)
                starts[tp] = max(first, end - self._last_records)
                if starts[tp] > first:
                    self._cut.add(tp)
            elif tp.topic == changelog and end - self._last_rows > oldest:
                starts[tp], self.facts.contexts_whole = end - self._last_rows, False
        return starts

    async def _without(self, refused: set[str]) -> None:
        """Go on with the other topics, from where they were."""
        self.refused |= refused
        tailer = self._tailer
        left = {tp: offset for tp, offset in tailer.positions.items() if tp.topic not in refused}
        await tailer.begin_at(left, {tp: tailer.ends[tp] for tp in left})

    # --- records ----------------------------------------------------------------------------------------------------
    def _take(self, topic: str, record: Record, now_s: float) -> None:
        topics, at_s = self._catalogue, record.timestamp / 1000
        if topic == topics.control:
            self.facts.control(record.key, record.value, record.headers, record.offset)
        elif topic == topics.hosts:
            self.facts.host(record.key, record.value, record.headers, at_s)
        elif topic == topics.selection:
            self.facts.totals(record.key, record.value)
        elif topic == topics.selection_changelog:
            self.facts.context(record.key, record.value)
        else:
            self._flow(topic, record, at_s, now_s)

    def _flow(self, topic: str, record: Record, at_s: float, now_s: float) -> None:
        if (tp := TopicPartition(topic, record.partition)) in self._cut:  # whole from its first record on
            self._cut.remove(tp)
            self.recent.since_s = max(self.recent.since_s, min(at_s, now_s))
        try:
            if topic == self._catalogue.predictions:
                self.recent.predicted(codec.predictions.decode(record.value, record.headers), at_s, now_s)
            elif topic == self._catalogue.audits:
                self.recent.audited(codec.audits.decode(record.value, record.headers), at_s, now_s)
            else:
                feedback = codec.feedback.decode(record.value, record.headers)
                self.recent.fed_back(feedback.application or "", at_s, now_s)
        except UndecodableRecord:
            return  # routers put it on the dead letters, and `status` counts those
