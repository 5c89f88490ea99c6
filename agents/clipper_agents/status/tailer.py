"""Reads a deployment's records into facts and figures: first what is there, then what comes.

Rules of this file:
- One plain consumer without a group: nothing is joined or committed, and no record is read twice.
- Compacted topics are read whole, the logs from the last minute on, and of that no more than the newest few thousand.
- A partition that cannot be read is named and not waited for: somebody who looks for a fault must see the rest.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeAlias

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from clipper_agents.kafka.admin import unreachable
from clipper_agents.kafka.attempts import REQUEST_S, again
from clipper_agents.status.deployment_view import Facts
from clipper_agents.status.traffic_window import LONGEST_S, Recent
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import UndecodableRecord
from clipper_topics.connection import KafkaConnection

LAST_RECORDS = 5_000
"""Of each partition of a log that are read back at first: a second's worth where there are so many."""
LAST_ROWS = 20_000
"""Of each partition of the selection changelog, which may be gigabytes long between two compactions."""
POLL_S = 0.2

Record: TypeAlias = ConsumerRecord[Any, Any]


class Following:
    """Follows the topics of a deployment. An asynchronous context manager: it connects, and closes.

    Args:
        connection: Where to read.
        catalogue: The deployment.
        context: A context whose totals are wanted: then the changelog is read whole.
        contexts: Whether totals of contexts are read at all.
        last_records: Of each partition of a log that are read back at first.
        last_rows: Of each partition of the changelog, without a context.

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
        context: str | None = None,
        contexts: bool = True,
        last_records: int = LAST_RECORDS,
        last_rows: int = LAST_ROWS,
    ) -> None:
        self.facts, self.recent = Facts(contexts_read=contexts or context is not None), Recent()
        self._connection, self._catalogue = connection, catalogue
        self._context, self._last_records, self._last_rows = context, last_records, last_rows
        self.refused: set[str] = set()
        self._ends: dict[TopicPartition, int] = {}
        self._cut: set[TopicPartition] = set()
        self._consumer = AIOKafkaConsumer(
            **connection.aiokafka(),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",  # changes are written in transactions
            request_timeout_ms=int(REQUEST_S * 1000),
            fetch_max_wait_ms=int(POLL_S * 1000),
        )

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            KafkaUnreachable: no broker answers.
            AccessRefused: Kafka does not let us in.
        """
        try:
            await again(self._consumer.start)
        except (KafkaError, OSError, TimeoutError) as error:
            await self._stop()
            raise await unreachable(self._connection, error) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._stop()

    async def position(self, existing: Iterable[TopicPartition]) -> None:
        """Find from where to read.

        Args:
            existing: Partitions that can be read; those of other topics are left alone.

        Raises:
            KafkaUnreachable: the brokers do not say what they hold.
        """
        found = [tp for tp in existing if tp.topic in self._topics()]
        self._consumer.assign(found)
        try:
            self._ends = await again(lambda: self._consumer.end_offsets(found))
            begins = await again(lambda: self._consumer.beginning_offsets(found))
            starts = await self._starts(found, begins, time.time())
        except (KafkaError, OSError, TimeoutError) as error:
            raise await unreachable(self._connection, error) from error
        for tp, start in starts.items():
            self._consumer.seek(tp, start)

    async def catch_up(self, within_s: float) -> list[str]:
        """Read what was there when the position was found.

        Returns:
            Names of topics that were not read to their end in that time.
        """
        end_s = time.monotonic() + within_s
        while (behind := await self._behind()) and time.monotonic() < end_s:
            await self.poll()
        return sorted({tp.topic for tp in behind})

    async def poll(self, within_s: float = POLL_S) -> None:
        """Read what has come, or wait so long for it. A topic that may not be read is left out from then on.

        Raises:
            KafkaUnreachable: what a broker gave is no log; one that is away is waited for.
        """
        try:
            fetched = await self._consumer.getmany(timeout_ms=max(1, int(within_s * 1000)))
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
        logs = {topics.predictions, topics.audits, topics.feedback}
        compacted = {topics.control, topics.hosts, topics.selection}
        return logs | compacted | ({topics.selection_changelog} if self.facts.contexts_read else set())

    async def _starts(
        self, found: Iterable[TopicPartition], begins: Mapping[TopicPartition, int], now_s: float
    ) -> dict[TopicPartition, int]:
        topics = self._catalogue
        logs = [tp for tp in found if tp.topic in {topics.predictions, topics.audits, topics.feedback}]
        since_ms = int((now_s - LONGEST_S) * 1000)
        timed = await again(lambda: self._consumer.offsets_for_times(dict.fromkeys(logs, since_ms))) if logs else {}
        starts = {}
        for tp in found:
            end, start = self._ends[tp], begins[tp]
            if tp in timed:
                first = timed[tp].offset if timed[tp] else end
                start = max(first, end - self._last_records)
                if start > first:
                    self._cut.add(tp)
            elif tp.topic == topics.selection_changelog and self._context is None and end - self._last_rows > start:
                start, self.facts.contexts_whole = end - self._last_rows, False
            starts[tp] = start
        return starts

    async def _without(self, refused: set[str]) -> None:
        """Go on with the other topics, from where they were."""
        self.refused |= refused
        positions = {tp: await self._consumer.position(tp) for tp in self._ends if tp.topic not in refused}
        self._ends = {tp: end for tp, end in self._ends.items() if tp in positions}
        self._consumer.assign(list(positions))
        for tp, offset in positions.items():
            self._consumer.seek(tp, offset)

    async def _behind(self) -> list[TopicPartition]:
        return [tp for tp, end in self._ends.items() if await self._consumer.position(tp) < end]

    # --- records ----------------------------------------------------------------------------------------------------
    def _take(self, topic: str, record: Record, now_s: float) -> None:
        topics, at_s = self._catalogue, record.timestamp / 1000
        if topic == topics.control:
            self.facts.control(record.key, record.value, record.headers)
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

    async def _stop(self) -> None:
        with suppress(KafkaError, OSError):
            stopping = asyncio.ensure_future(self._consumer.stop())
            await asyncio.wait([stopping])  # while Kafka is down, aiokafka raises CancelledError halfway
