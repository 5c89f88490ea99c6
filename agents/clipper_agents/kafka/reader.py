"""The one reader of logs outside any consumer group: ranges of partitions, or partitions as they are written.

    a range:    read, read_all, lists       or step by step: assign --> fetch while `unread`
    following:  follow(starts): the ends are asked for --> fetch while `behind` --> fetch: what comes
    a compacted topic, read whole and then followed by a process: `TopicFollower`

Rules of this file:
- Each record is read once, in log order within its partition.
- A range ends where it was said to end; what is written meanwhile belongs to another range.
- Where there is nothing to read nothing is assigned: an assignment that is taken back before aiokafka has seen it ends
  its fetching for good.
- Between an assignment and its seeks nothing is awaited: aiokafka would fetch from the beginning.
- A partition is paused at the end of its range, and unassigned at the end of the reading: what was fetched is freed.
- In memory is one fetch a partition, however slowly its records are taken.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError, TopicAuthorizationFailedError

from clipper_agents.kafka.aiokafka_patches import TransactionMarker
from clipper_agents.kafka.clients import IsolationLevel, connected, learn_leaders, make_consumer, translated_errors
from clipper_agents.kafka.errors import checked_partitions
from clipper_agents.kafka.log_bounds import PositionKeeper
from clipper_agents.kafka.retry import COMMANDS, RETRY_WAIT_S, RetryPolicy, retry
from clipper_agents.kafka.topics import existing_topics
from clipper_stream.client.kafka import stop
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

Record: TypeAlias = ConsumerRecord[Any, Any]
Apply = Callable[[TopicPartition, list[Record]], None]
T = TypeVar("T")

FETCH_BYTES = 4 << 20
POLL_S = 0.02
"""Behind the last record there may be the marker of its transaction, of which a consumer is not told: so often it is
seen whether the position is behind it."""
FETCH_WAIT_S = 0.01
"""Short, since the next reading waits for a fetch that is under way."""
FOLLOW_BYTES, FOLLOW_WAIT_S = 1 << 20, 0.2
"""The same for whoever follows partitions: what comes is little, and nothing else waits for the fetch."""
NO_END = (1 << 63) - 1
"""Larger than any offset."""


class Range(NamedTuple):
    """Offsets of a partition: from the first on, without the end."""

    first: int
    end: int


class LogReader:
    """One plain consumer with manual assignment, started when it is first used; one reading at a time.

    With `read_committed` no record of an aborted transaction is read, and a partition ends before the first open one.
    A fetch holds at most `fetch_bytes` of a partition; a broker holds one that finds nothing for `fetch_wait_s`.

    Attributes:
        positions: Next offset of each partition that is read, behind offsets that hold no record, at most the end.
        ends: Where the followed partitions ended when that was last asked for.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        *,
        policy: RetryPolicy,
        isolation_level: IsolationLevel = "read_committed",
        fetch_bytes: int = FETCH_BYTES,
        fetch_wait_s: float = FETCH_WAIT_S,
    ) -> None:
        self._kafka, self._policy = kafka, policy
        self._committed = isolation_level == "read_committed"
        self._markers: dict[TransactionMarker, int] = {}
        self._make_consumer = partial(
            make_consumer,
            kafka,
            isolation_level=isolation_level,
            request_s=policy.request_s,
            fetch_bytes=fetch_bytes,
            fetch_wait_s=fetch_wait_s,
            markers=self._markers,
        )
        self._consumer: Any = None
        self._lock = asyncio.Lock()
        self._keeper = PositionKeeper()
        self._unread: dict[TopicPartition, int] = {}
        self._has_fetched = False
        self.positions: dict[TopicPartition, int] = {}
        self.ends: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        """Connect now, and not with the first question."""
        async with self._lock:
            await self._started()

    async def close(self) -> None:
        async with self._lock:
            if self._consumer is not None:
                await stop(self._consumer)
                self._consumer = None

    async def partitions_of(self, topic: str) -> list[TopicPartition]:
        """The partitions of a topic, as soon as there is one; an error if this user may not see it."""
        consumer = await self._started()
        await learn_leaders(consumer, [TopicPartition(topic, 0)])
        while not (found := consumer.partitions_for_topic(topic)):
            if topic in consumer._client.cluster.unauthorized_topics:
                raise TopicAuthorizationFailedError(topic)
            await asyncio.sleep(RETRY_WAIT_S)
            await consumer._client.force_metadata_update()
        return [TopicPartition(topic, number) for number in sorted(found)]

    # --- offsets --------------------------------------------------------------------------------------------------
    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """One past the last record of each partition, now."""
        return await self._offsets("end_offsets", list(partitions))

    async def proven_ends(
        self, starts: Mapping[TopicPartition, int], markers: Mapping[TopicPartition, TransactionMarker]
    ) -> dict[TopicPartition, int]:
        """Where these markers stand, once they are there: so far each log goes, whatever end a broker names.

        `starts` are the ends that brokers named before the markers were written.
        """
        async with self._assigned({tp: Range(starts[tp], NO_END) for tp in markers}):
            self._markers.clear()
            while not self._markers.keys() >= {*markers.values()}:
                await self.fetch(wait_s=POLL_S)
            return {tp: self._markers[marker] for tp, marker in markers.items()}

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset that each partition still has."""
        return await self._offsets("beginning_offsets", list(partitions))

    async def offsets_at(self, partitions: Iterable[TopicPartition], at_ms: int) -> dict[TopicPartition, int]:
        """First offset of this time (milliseconds since the epoch) or later, of the partitions that have one."""
        times = dict.fromkeys(partitions, max(0, at_ms))
        found = await self._offsets("offsets_for_times", times)
        return {tp: one.offset for tp, one in found.items() if one is not None}

    async def ranges(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Range]:
        """Everything that the partitions hold now."""
        asked = list(partitions)
        firsts, ends = await self.beginning_offsets(asked), await self.end_offsets(asked)
        return {tp: Range(firsts[tp], ends[tp]) for tp in asked}

    # --- records --------------------------------------------------------------------------------------------------
    async def read(
        self,
        starts: Mapping[TopicPartition, int | None],
        apply: Apply,
        ends: Mapping[TopicPartition, int] | None = None,
        since_ms: Mapping[TopicPartition, int] | None = None,
    ) -> int:
        """Hand every record of the ranges to `apply`, in lists by partition, in log order; return their number.

        A range goes from its start (None: from the oldest record), but not from before the first record of `since_ms`,
        up to its end, which is waited for (absent: the end of the partition now).
        """
        if not starts:
            return 0
        total, there, ends = 0, await self.ranges(starts), ends or {}
        first = {tp: max(one.first, starts[tp] or 0) for tp, one in there.items()}
        for tp, at_ms in (since_ms or {}).items():
            first[tp] = max(first[tp], (await self.offsets_at([tp], at_ms)).get(tp, there[tp].end))
        ranges = {tp: Range(first[tp], ends.get(tp, one.end)) for tp, one in there.items()}
        async with aclosing(self.lists(ranges)) as lists:
            async for tp, records in lists:
                total += len(records)
                apply(tp, records)
        return total

    async def read_all(self, partitions: Iterable[TopicPartition]) -> list[Record]:
        """Every record of the partitions, up to their ends now, in log order within each."""
        found: list[Record] = []
        await self.read(dict.fromkeys(partitions), lambda _, records: found.extend(records))
        return found

    async def lists(
        self, ranges: Mapping[TopicPartition, Range], max_records: int | None = None
    ) -> AsyncGenerator[tuple[TopicPartition, list[Record]], None]:
        """The records of the ranges, in lists of at most `max_records` of a partition; use `contextlib.aclosing`.

        Raises:
            KafkaError: an error that does not pass, for example a missing right.
            TimeoutError: nothing came for as long as the policy says.
        """
        async with self._assigned(ranges):
            while self._unread:
                for tp, records in (await self.fetch(max_records=max_records)).items():
                    yield tp, records

    @asynccontextmanager
    async def _assigned(self, ranges: Mapping[TopicPartition, Range]) -> AsyncIterator[None]:
        """Have `fetch` read these ranges in the block, and nothing afterwards."""
        async with self._lock:
            consumer = await self._started()
            self.assign(ranges)
            self._has_fetched = False
            try:
                yield
            finally:
                if self._has_fetched:
                    consumer.unsubscribe()

    def assign(self, ranges: Mapping[TopicPartition, Range]) -> None:
        """Have `fetch` read these ranges and nothing else; the reader has been started."""
        self._unread = {tp: one.end for tp, one in ranges.items() if one.first < one.end}
        self.positions = {tp: one.first for tp, one in ranges.items()}
        if self._consumer is not None and self._unread:
            self._consumer.assign(list(self._unread))
            for tp in self._unread:
                self._consumer.seek(tp, ranges[tp].first)

    async def follow(
        self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int] | None = None
    ) -> None:
        """Have `fetch` read from these offsets on, without an end; `ends` when they have been asked for already."""
        await self.start()
        self.ends = dict(ends) if ends is not None else await self.end_offsets(starts)
        self.assign({tp: Range(start, NO_END) for tp, start in starts.items()})

    @property
    def behind(self) -> list[TopicPartition]:
        """Followed partitions that are not read to their end, as it was when it was last asked for."""
        return [tp for tp, end in self.ends.items() if self.positions[tp] < end]

    @property
    def last_response_ms(self) -> int:
        """When a broker last answered a fetch of `unread`, in milliseconds since the epoch; 0: it never did."""
        return max([self._consumer.last_poll_timestamp(tp) or 0 for tp in self._unread], default=0)

    @property
    def unread(self) -> AbstractSet[TopicPartition]:
        """Partitions of which the end of the range has not been reached."""
        return self._unread.keys()

    async def fetch(
        self,
        partitions: Iterable[TopicPartition] | None = None,
        max_records: int | None = None,
        wait_s: float | None = None,
    ) -> dict[TopicPartition, list[Record]]:
        """The next records of what is assigned or followed, or of some partitions of it; there may be none.

        At most `max_records` of all partitions together; None: a fetch of each. Returns with nothing after `wait_s`,
        and without that when a position has moved. Errors as of `lists`.
        """
        wanted = list(self._unread if partitions is None else partitions)
        if not wanted:
            if partitions is None and wait_s is not None:  # a loop around this would take the whole processor
                await asyncio.sleep(wait_s)
            return {}
        if wait_s is not None:
            return (await self._polled(wanted, max_records, wait_s))[0]
        async with asyncio.timeout(self._policy.silence_s):
            while True:
                found, moved = await self._polled(wanted, max_records, POLL_S)
                if moved:
                    return found

    def known_end(self, tp: TopicPartition) -> int:
        """One past the last record that could be read when the partition was last fetched; 0: it never was."""
        end = self._consumer.last_stable_offset(tp) if self._committed else None
        return (self._consumer.highwater(tp) if end is None else end) or 0

    def skip_to(self, tp: TopicPartition, offset: int) -> None:
        """Go on reading at a later offset of the range; what was fetched before it is not given."""
        self._consumer.seek(tp, offset)
        self.positions[tp] = offset

    async def _polled(
        self, wanted: list[TopicPartition], max_records: int | None, wait_s: float
    ) -> tuple[dict[TopicPartition, list[Record]], bool]:
        consumer = await self._started()
        fetched: Mapping[TopicPartition, list[Record]] = {}
        try:
            fetched = await consumer.getmany(*wanted, timeout_ms=math.ceil(wait_s * 1000), max_records=max_records)
        except OffsetOutOfRangeError as error:
            await self._keeper.resolve(consumer, error)
        self._has_fetched = True
        found = {tp: one for tp, records in fetched.items() if (one := _before(records, self._unread[tp]))}
        moved = False
        for tp in wanted:
            position = await self._ask("position", partial(consumer.position, tp))
            moved |= position != self.positions[tp]
            self.positions[tp] = min(position, self._unread[tp])
            if position >= self._unread[tp]:
                del self._unread[tp]
                consumer.pause(tp)
        return found, moved

    async def _offsets(self, what: str, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Any]:
        if not partitions:
            return {}
        async with self._lock:
            consumer = await self._started()
        await learn_leaders(consumer, partitions)  # without the lock: who reads, or has no leader, holds up nobody
        return dict(await self._ask(what, partial(getattr(consumer, what), partitions)))

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            self._consumer = await self._ask("start of a log reader", lambda: connected(self._make_consumer()))
        return self._consumer

    async def _ask(self, what: str, ask: Callable[[], Awaitable[T]]) -> T:
        return await retry(what, ask, self._policy.within_s)


@asynccontextmanager
async def open_reader(
    kafka: KafkaConnection,
    policy: RetryPolicy = COMMANDS,
    **options: Any,
) -> AsyncIterator[LogReader]:
    """A connected `LogReader`, which has these options too, for the time of the block.

    Raises:
        KafkaUnreachable: no broker answers, or nothing came for as long as the policy says.
        AccessRefused: Kafka does not let us in, or a right is missing.
    """
    reader = LogReader(kafka, policy=policy, **options)
    async with translated_errors(kafka):
        try:
            await reader.start()
            yield reader
        finally:
            await reader.close()


async def read_topic(
    kafka: KafkaConnection, catalogue: Catalogue, topic: str, take: Callable[[list[Record]], None]
) -> None:
    """Hand over every record that a topic has now, in lists of records of one partition, in log order.

    Raises:
        TopicMismatch: there is no such topic; other errors as of `open_reader`.
    """
    partitions = checked_partitions(topic, (await existing_topics(kafka, catalogue.prefix)).get(topic))
    async with open_reader(kafka) as reader:
        every = dict.fromkeys(TopicPartition(topic, number) for number in range(partitions))
        await reader.read(every, lambda _, records: take(records))


def _before(records: list[Record], end: int) -> list[Record]:
    return records if records[-1].offset < end else [record for record in records if record.offset < end]
