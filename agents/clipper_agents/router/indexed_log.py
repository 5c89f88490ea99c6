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
from itertools import chain
from typing import Any, Protocol

from aiokafka import ConsumerRecord, TopicPartition

from clipper_agents.kafka.reader import Apply, LogReader
from clipper_agents.router.clock_skew import ClockSkew
from clipper_agents.router.decision_index import LogIndex, PartitionIndex
from clipper_agents.router.outgoing_records import Decided, Outgoing
from clipper_agents.router.query_consumer import QueryConsumer
from clipper_agents.streaming.app import TaskRunner
from clipper_agents.streaming.outbox import Outbox
from clipper_stream.query import QueryBatch
from clipper_topics.feedback import LONGEST_AWAY_MS, said_at_ms
from clipper_topics.logged_records import LoggedRecord

logger = logging.getLogger(__name__)

LOOK_AHEAD = 1_000
"""Offsets without a record that may follow a position, or stand before an end: the markers of transactions."""
MOST_READ = 100_000
"""Unread feedback that is read to see since when it is: a second's work; of more the first is asked."""
OTHERS_S = 5.0
"""For what others have to read."""


class LoggedTopic(Protocol):
    """What an `IndexedLog` needs to know about the records of its topic, and whom it notifies."""

    topic: str

    def keys_of(self, batch: QueryBatch, queries: Iterable[int], /) -> list[str]:
        """Return the keys under which the records about queries are indexed."""
        ...

    def read(self, record: ConsumerRecord[Any, Any], /) -> tuple[str, LoggedRecord] | None:
        """Return key and content of a record of any writer; None for a record of another kind."""
        ...

    def written(self, partition: int, outgoing: list[Outgoing], generation: int, /, *, alone: bool) -> None:
        """Take note that records of one partition are in the log and indexed.

        `alone` says that nobody else has written to the partition since this process owns it: what is indexed is what
        was sent.
        """
        ...

    def round_ended(self, outgoing: list[Outgoing], offsets: list[int], took_s: float, /) -> None:
        """Take note that a round of these records, which are at these offsets, took a number of seconds."""
        ...


class IndexedLog:
    """Sends and indexes records of one topic.

    Args:
        outbox: Sends.
        reader: Reads what others wrote.
        owner: Knows what the records are about, and is told that they are written.
        index: The index of the topic.
        consumer: Knows the generation that counts.
        tasks: Runs the rounds.
        skew: Compares this process's clock with the stamps of the broker.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        outbox: Outbox,
        reader: LogReader,
        owner: LoggedTopic,
        index: LogIndex,
        consumer: QueryConsumer,
        tasks: TaskRunner,
        *,
        skew: ClockSkew | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._outbox, self._reader, self._owner, self._topic = outbox, reader, owner, owner.topic
        self.index = index
        self._consumer, self._tasks = consumer, tasks
        self._skew, self._clock = skew or ClockSkew(), clock
        self._waiting: dict[int, list[Outgoing]] = {}
        self._unwritten = Counter[int]()
        self._sending: set[int] = set()
        """Partitions that have a round under way."""
        self._read: set[int] = set()
        """Partitions of which records were read since the inputs flow: what was decided before may be second."""
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, outgoing: Iterable[Outgoing]) -> None:
        """Queue records for the next round of their partition."""
        waiting = self._waiting
        for one in outgoing:
            partition = one.batch.partition
            waiting.setdefault(partition, []).append(one)
            self._unwritten[partition] += len(one.values)
        for partition in waiting.keys() - self._sending:
            self._idle.clear()
            self._sending.add(partition)
            self._tasks.watched(self._send(partition))

    def unwritten(self, partition: int) -> int:
        """Number of records of a partition that are not in the log yet."""
        return self._unwritten[partition]

    async def idle(self) -> None:
        """Wait until no record is being sent."""
        await self._idle.wait()

    async def restore(
        self, since_ms: Mapping[int, int], ends: Mapping[TopicPartition, int], unread_ms: Mapping[int, int]
    ) -> int:
        """Index the part of the log behind the index, and return the number of records.

        Args:
            since_ms: By partition that this process owns now: older records are not needed where the log is read whole,
                in milliseconds since the epoch.
            ends: Where the markers stand that this process has written.
            unread_ms: Likewise, since when queries and feedback may be that are still to be read.
        """
        for number in since_ms:
            index = self.index.of(number)
            if index.last_offset >= ends[TopicPartition(self._topic, number)]:
                logger.warning("index is ahead of its log topic=%s partition=%d: rebuilding", self._topic, number)
                index.clear()
            index.begin(index.needed_since_ms(unread_ms[number]), since_ms[number])
        count = await self.catch_up(since_ms, since_ms, ends)
        for number in since_ms:
            self.index.of(number).pass_marker(ends[TopicPartition(self._topic, number)])
        self._read.clear()
        return count

    async def catch_up(
        self,
        partitions: Iterable[int],
        since_ms: Mapping[int, int] | None = None,
        ends: Mapping[TopicPartition, int] | None = None,
    ) -> int:
        """Index the part of the log behind the index, up to ends that are proven, and return the number of records."""
        starts = {TopicPartition(self._topic, number): self.index.of(number).last_offset + 1 for number in partitions}
        since = {TopicPartition(self._topic, number): at_ms for number, at_ms in (since_ms or {}).items()}
        return await self._reader.read(starts, self._index_read, ends, since)

    async def _send(self, partition: int) -> None:
        while outgoing := self._waiting.pop(partition, None):
            await self._round(partition, outgoing)
            self._unwritten[partition] -= sum(len(one.values) for one in outgoing)
        self._sending.remove(partition)
        if not self._sending:
            self._idle.set()

    async def _round(self, partition: int, outgoing: list[Outgoing]) -> None:
        await self._consumer.confirmed()
        generation = self._consumer.generation
        current = [one for one in outgoing if one.batch.generation == generation]
        if not current:
            return
        began_s, sent_s = time.monotonic(), self._clock()
        records = chain.from_iterable(one.records() for one in current)
        delivery = await self._outbox.submit(self._topic, partition, records)
        offsets = await delivery.offsets()
        if delivery.stamped_s is not None:
            self._skew.observe(sent_s, delivery.stamped_s, self._clock())
        at_s = self._clock() if delivery.stamped_s is None else delivery.stamped_s
        if await self._finish(partition, current, offsets, generation, at_s):
            self._owner.round_ended(current, offsets, time.monotonic() - began_s)

    async def _finish(
        self, partition: int, outgoing: list[Outgoing], offsets: list[int], generation: int, at_s: float
    ) -> bool:
        """Index acknowledged records and report them as written; return False if the generation has ended."""
        if self._consumer.generation != generation:
            return False
        index = self.index.of(partition)
        first = index.last_offset + 1
        if offsets != [*range(first, first + len(offsets))]:
            end = offsets[-1] + 1
            await self.catch_up([partition], ends={TopicPartition(self._topic, partition): end} if end else None)
            if self._consumer.generation != generation:
                return False
        else:
            self._index(index, outgoing, first, at_s, look=partition in self._read)
        self._owner.written(partition, outgoing, generation, alone=partition not in self._read)
        return True

    def _index_read(self, tp: TopicPartition, records: list[ConsumerRecord[Any, Any]]) -> None:
        self._read.add(tp.partition)
        found = [one for one in map(self._owner.read, records) if one is not None]
        self.index.of(tp.partition).index(found, records[-1].offset, records[-1].timestamp / 1000)

    def _index(
        self, index: PartitionIndex, outgoing: Sequence[Outgoing], first_offset: int, at_s: float, *, look: bool
    ) -> None:
        """Index a batch that begins at an offset of the log.

        A query is decided about once, when its id is not in the index. So nothing has to be looked up, unless another
        application's query has the same id, or (`look`) records of another process were read after the decision.
        """
        keys_of, offset, decided = self._owner.keys_of, first_offset, list[Decided]()
        for one in outgoing:
            decided += one.decided(offset, keys_of)
            offset += len(one.values)
        if look or any(one.shares_id for one in outgoing):
            index.index([(one[0], LoggedRecord(*one[1:])) for one in decided], offset - 1, at_s)
        else:
            index.index_new(decided, offset - 1, at_s)


async def unread_since_ms(
    reader: LogReader,
    queries: Mapping[TopicPartition, int],
    feedback: Mapping[TopicPartition, int],
    predictions: str,
    proven: Mapping[TopicPartition, int],
) -> dict[int, int]:
    """Return by owned partition since when queries or feedback may be that are still to be read there.

    In milliseconds since the epoch, by the logs. Feedback of any partition may be sent on to any other, and where
    nothing is unread what comes is younger than the newest prediction.

    Args:
        reader: Reads the first records, and feedback that is unread in owned partitions.
        queries: Next offsets to read of the owned partitions.
        feedback: Those of all partitions.
        predictions: Name of the predictions topic.
        proven: Ends of logs that are known for certain; of others the broker is asked.
    """
    owned = [tp.partition for tp in queries]
    logged = [TopicPartition(predictions, one) for one in owned]
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
    told = {tp: max(feedback[tp], firsts[tp]) for tp in mine}
    few = {tp: first for tp, first in told.items() if first < ends[tp] <= first + MOST_READ}
    await reader.read(few, note_said, {tp: ends[tp] for tp in few})  # copies of what was said long ago may be in it
    await read_some({tp: first for tp, first in told.items() if tp not in few}, note_long_ago, ends)
    others = [tp for tp in feedback if tp not in mine]
    with suppress(TimeoutError):  # one that has no leader is no reason to serve none
        async with asyncio.timeout(OTHERS_S):
            there = await reader.ranges(others)
            upto = {tp: there[tp].end for tp in others}
            await read_some({tp: max(feedback[tp], there[tp].first) for tp in others}, note_said, upto)
    await reader.read({tp: max(0, ends[tp] - LOOK_AHEAD) for tp in logged}, note_last, {tp: ends[tp] for tp in logged})
    known_ms = {one: [*said_ms, *([asked_ms[one]] if one in asked_ms else [])] for one in owned}
    return {one: min(known_ms[one], default=max(newest_ms)) for one in owned}
