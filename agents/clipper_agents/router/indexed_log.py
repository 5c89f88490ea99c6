"""A topic that this process writes and indexes: records are sent, acknowledged, indexed, and then reported as written.

Rules of this file:
- One round of a partition at a time: everything that is finished goes out as one batch, and while the broker takes it,
  the next round gathers. So records of a partition are indexed in the order in which they stand in the log; and no
  partition waits for another, whose leader may be away.
- Order of a round: be sure that the partition is still this process's own; send; wait for the broker; index each record
  with its offset; report that it is written.
- Offsets that are not the successors of the last ones mean that somebody else wrote, a process that lost the partition
  and did not know it yet: what lies between is read from the log, and of two records about a query the first counts.
- What belongs to an older generation of the consumer is dropped: its queries are read again, here or elsewhere.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain, count, repeat
from typing import Any, NamedTuple, TypeAlias

from aiokafka import ConsumerRecord, TopicPartition

from clipper_agents.kafka.reader import Apply, LogReader
from clipper_agents.router.decision_index import LogIndex
from clipper_agents.router.self_report import ClockSkew
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.outbox import Record
from clipper_stream.query import Answers, QueryBatch
from clipper_topics import codec
from clipper_topics.codec import headers_of
from clipper_topics.feedback import LONGEST_AWAY_MS, said_at_ms
from clipper_topics.logged_records import LoggedRecord, audit_key

logger = logging.getLogger(__name__)

LOOK_AHEAD = 1_000
"""Offsets without a record that may follow a position, or stand before an end: the markers of transactions."""
MOST_READ = 100_000
"""Unread feedback that is read to see since when it is: a second's work; of more the first is asked."""
OTHERS_S = 5.0
"""For what others have to read."""

ReadRecord: TypeAlias = Callable[[ConsumerRecord[Any, Any]], tuple[str, LoggedRecord] | None]
IndexEntry: TypeAlias = tuple[str, int, bytes, bool, bool]
"""Key in the index, offset, value, whether that is msgpack, and whether an audit follows."""


class OutgoingRecords(NamedTuple):
    """Predictions or audits to send.

    Attributes:
        batch: Has the queries that they are about.
        entries: These queries, or their audits.
        values: The bytes of each record.
        content_type: Of the values.
        answers: What is in the records; None for repetitions of recorded ones.
    """

    batch: QueryBatch
    entries: Sequence[int]
    values: list[bytes]
    content_type: str
    answers: Answers | None = None

    @property
    def queries(self) -> Sequence[int]:
        return [self.batch.query_of(entry) for entry in self.entries] if self.batch.audit else self.entries

    @property
    def shares_id(self) -> bool:
        """Whether another application's query has the same id as one of these."""
        return self.answers is not None and self.batch.shares_id

    @property
    def traces(self) -> list[tuple[int, Any]]:
        """Place of each record that is about a sampled query, and the query's trace."""
        if not self.batch.traces:
            return []
        queries = self.queries
        return [(queries.index(query), trace) for query, trace in self.batch.traces.items() if query in queries]

    def records(self) -> Iterable[Record]:
        headers, echoed, queries = headers_of(self.content_type, state_json=True), self.batch.echoed, self.queries
        keys = [self.batch.keys[query] for query in queries]
        if not echoed:
            return zip(keys, self.values, repeat(headers), strict=False)
        return zip(keys, self.values, ([*headers, *echoed.get(query, ())] for query in queries), strict=True)

    def index_entries(self, first: int) -> Iterable[IndexEntry]:
        if self.answers is None:
            return ()
        batch, queries, audit = self.batch, self.queries, self.batch.audit
        keys = [batch.ids[query] for query in queries]
        if queries is not self.entries and self.entries[0] >= len(batch):
            keys = [audit_key(batch.ids[query], batch.offsets[query]) for query in queries]
        audited = [entry in audit for entry in self.entries] if audit else repeat(False)  # noqa: FBT003
        msgpack = repeat(self.content_type == codec.MSGPACK)
        return zip(keys, count(first), self.values, msgpack, audited, strict=False)


class WrittenRound(NamedTuple):
    """Records of one partition that are in the log and indexed.

    Attributes:
        alone: Whether nobody else has written to the partition since this process owns it: what is indexed is what was
            sent.
        took_s: From their sending until they were indexed, in seconds.
    """

    partition: int
    outgoing: list[OutgoingRecords]
    offsets: list[int]
    generation: int
    alone: bool
    took_s: float


class IndexedLog:
    """Sends and indexes records of one topic."""

    def __init__(
        self, app: ClipperApp, topic: str, index: LogIndex, read: ReadRecord, skew: ClockSkew | None = None
    ) -> None:
        self._app, self.topic, self.index, self._read_record = app, topic, index, read
        self._skew = skew or ClockSkew()
        self._written: Callable[[WrittenRound], None] = lambda _: None
        self._waiting: dict[int, list[OutgoingRecords]] = {}
        self._unwritten = Counter[int]()
        self._sending: set[int] = set()
        """Partitions that have a round under way."""
        self._read: set[int] = set()
        """Partitions of which records were read since the inputs flow: what was decided before may be second."""
        self._idle = asyncio.Event()
        self._idle.set()

    def connect(self, written: Callable[[WrittenRound], None]) -> None:
        self._written = written

    def add(self, outgoing: Iterable[OutgoingRecords]) -> None:
        waiting = self._waiting
        for some in outgoing:
            partition = some.batch.partition
            waiting.setdefault(partition, []).append(some)
            self._unwritten[partition] += len(some.values)
        for partition in waiting.keys() - self._sending:
            self._idle.clear()
            self._sending.add(partition)
            self._app.watched(self._send(partition))

    def unwritten(self, partition: int) -> int:
        return self._unwritten[partition]

    async def idle(self) -> None:
        await self._idle.wait()

    async def restore(
        self, since_ms: Mapping[int, int], ends: Mapping[TopicPartition, int], unread_ms: Mapping[int, int]
    ) -> int:
        """Index the part of the log behind the index, and return the number of records.

        By partition that this process owns now, in milliseconds since the epoch: `since_ms`, from when on records are
        needed where the log is read whole; `unread_ms`, since when queries and feedback may be that are still to be
        read. `ends` is where the markers stand that this process has written.
        """
        for number in since_ms:
            index = self.index[number]
            if index.last_offset >= ends[TopicPartition(self.topic, number)]:
                logger.warning("index is ahead of its log topic=%s partition=%d: rebuilding", self.topic, number)
                index.clear()
            index.begin(index.needed_since_ms(unread_ms[number]), since_ms[number])
        count = await self.catch_up(since_ms, since_ms, ends)
        for number in since_ms:
            self.index[number].pass_marker(ends[TopicPartition(self.topic, number)])
        self._read.clear()
        return count

    async def catch_up(
        self,
        partitions: Iterable[int],
        since_ms: Mapping[int, int] | None = None,
        ends: Mapping[TopicPartition, int] | None = None,
    ) -> int:
        """Index the part of the log behind the index, up to ends that are proven, and return the number of records."""
        starts = {TopicPartition(self.topic, number): self.index[number].last_offset + 1 for number in partitions}
        since = {TopicPartition(self.topic, number): at_ms for number, at_ms in (since_ms or {}).items()}
        return await self._app.log_reader.read(starts, self._index_read, ends, since)

    async def _send(self, partition: int) -> None:
        while outgoing := self._waiting.pop(partition, None):
            await self._round(partition, outgoing)
            self._unwritten[partition] -= sum(len(some.values) for some in outgoing)
        self._sending.remove(partition)
        if not self._sending:
            self._idle.set()

    async def _round(self, partition: int, outgoing: list[OutgoingRecords]) -> None:
        await self._app.lease.confirmed()
        generation = self._app.generation
        current = [some for some in outgoing if some.batch.generation == generation]
        if not current:
            return
        began_s, sent_s = time.monotonic(), time.time()
        records = chain.from_iterable(some.records() for some in current)
        delivery = await self._app.outbox.submit(self.topic, partition, records)
        offsets = await delivery.offsets()
        if delivery.stamped_s is not None:
            self._skew.observe(sent_s, delivery.stamped_s, time.time())
        at_s = time.time() if delivery.stamped_s is None else delivery.stamped_s
        if self._app.generation == generation:
            await self._index(partition, current, offsets, at_s)
        if self._app.generation == generation:
            alone, took_s = partition not in self._read, time.monotonic() - began_s
            self._written(WrittenRound(partition, current, offsets, generation, alone, took_s))

    async def _index(self, partition: int, outgoing: list[OutgoingRecords], offsets: list[int], at_s: float) -> None:
        """Index acknowledged records.

        A query is decided about once, when its id is not in the index. So nothing has to be looked up, unless another
        application's query has the same id, or records of another process were read after the decision.
        """
        index = self.index[partition]
        first = offset = index.last_offset + 1
        if offsets != [*range(first, first + len(offsets))]:
            end = offsets[-1] + 1
            await self.catch_up([partition], ends={TopicPartition(self.topic, partition): end} if end else None)
            return
        entries = list[IndexEntry]()
        for some in outgoing:
            entries += some.index_entries(offset)
            offset += len(some.values)
        if partition in self._read or any(some.shares_id for some in outgoing):
            index.index([(entry[0], LoggedRecord(*entry[1:])) for entry in entries], offset - 1, at_s)
        else:
            index.index_new(entries, offset - 1, at_s)

    def _index_read(self, tp: TopicPartition, records: list[ConsumerRecord[Any, Any]]) -> None:
        self._read.add(tp.partition)
        logged = [entry for entry in map(self._read_record, records) if entry is not None]
        self.index[tp.partition].index(logged, records[-1].offset, records[-1].timestamp / 1000)


class QueryLogs(NamedTuple):
    """The logs of predictions and audits; what concerns both is done for predictions first, because audits follow."""

    predictions: IndexedLog
    audits: IndexedLog

    async def idle(self) -> None:
        for log in self:
            await log.idle()

    def unwritten(self, partition: int) -> int:
        return sum(log.unwritten(partition) for log in self)

    async def restore(
        self, since_ms: Mapping[int, int], ends: Mapping[TopicPartition, int], unread_ms: Mapping[int, int]
    ) -> int:
        """Restore both, and return the number of predictions read; arguments are those of `IndexedLog.restore`."""
        count = await self.predictions.restore(since_ms, ends, unread_ms)
        await self.audits.restore(since_ms, ends, unread_ms)
        return count

    async def catch_up(self, partitions: Sequence[int]) -> None:
        for log in self:
            await log.catch_up(partitions)

    def keep_only(self, partitions: Iterable[int]) -> None:
        for log in self:
            log.index.keep_only(partitions)


async def unread_since_ms(
    reader: LogReader,
    queries: Mapping[TopicPartition, int],
    feedback: Mapping[TopicPartition, int],
    predictions: str,
    proven: Mapping[TopicPartition, int],
) -> dict[int, int]:
    """Return by owned partition since when queries or feedback may be that are still to be read there.

    In milliseconds since the epoch, by the logs. Feedback of any partition may be sent on to any other, and where
    nothing is unread what comes is younger than the newest prediction. `queries` and `feedback` are the next offsets to
    read, of the owned partitions and of all; `proven` are ends of logs that are known for certain.
    """
    owned = [tp.partition for tp in queries]
    logged = [TopicPartition(predictions, number) for number in owned]
    mine = [tp for tp in feedback if tp.partition in owned]
    firsts = await reader.beginning_offsets([*queries, *mine])
    ends = {**await reader.end_offsets([*queries, *mine, *logged]), **proven}
    asked_ms: dict[int, int] = {}
    said_ms: list[int] = []
    newest_ms = [0]

    def note_asked(tp: TopicPartition, records: list[ConsumerRecord[Any, Any]]) -> None:
        asked_ms.setdefault(tp.partition, records[0].timestamp)

    def note_said(_: TopicPartition, records: list[ConsumerRecord[Any, Any]]) -> None:
        said_ms.append(min(said_at_ms(record.timestamp, record.headers) for record in records))

    def note_long_ago(_: TopicPartition, records: list[ConsumerRecord[Any, Any]]) -> None:
        said_ms.append(records[0].timestamp - LONGEST_AWAY_MS)

    def note_last(_: TopicPartition, records: list[ConsumerRecord[Any, Any]]) -> None:
        newest_ms.append(records[-1].timestamp)

    async def read_some(unread: Mapping[TopicPartition, int], note: Apply, upto: Mapping[TopicPartition, int]) -> None:
        """The first records of what is unread."""
        starts = {tp: first for tp, first in unread.items() if first < upto[tp]}
        await reader.read(starts, note, {tp: min(upto[tp], first + LOOK_AHEAD) for tp, first in starts.items()})

    await read_some({tp: max(first, firsts[tp]) for tp, first in queries.items()}, note_asked, ends)
    unread = {tp: max(feedback[tp], firsts[tp]) for tp in mine}
    few = {tp: first for tp, first in unread.items() if first < ends[tp] <= first + MOST_READ}
    await reader.read(few, note_said, {tp: ends[tp] for tp in few})  # copies of what was said long ago may be in it
    await read_some({tp: first for tp, first in unread.items() if tp not in few}, note_long_ago, ends)
    others = [tp for tp in feedback if tp not in mine]
    with suppress(TimeoutError):  # one that has no leader is no reason to serve none
        async with asyncio.timeout(OTHERS_S):
            there = await reader.ranges(others)
            upto = {tp: there[tp].end for tp in others}
            await read_some({tp: max(feedback[tp], there[tp].first) for tp in others}, note_said, upto)
    await reader.read({tp: max(0, ends[tp] - LOOK_AHEAD) for tp in logged}, note_last, {tp: ends[tp] for tp in logged})
    known_ms = {number: [*said_ms, *([asked_ms[number]] if number in asked_ms else [])] for number in owned}
    return {number: min(known_ms[number], default=max(newest_ms)) for number in owned}
