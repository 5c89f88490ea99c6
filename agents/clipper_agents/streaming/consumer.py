"""The group's member of an app: reads inputs in whole lists, onto the channels of agents, and commits what is finished.

    joined --> assigned --> state restored, positions set --> generation begins: delivers, commits --> revoked --> ...

Rules of this file:
- What is committed is `OffsetTracker.committable` and nothing else. Beside an offset stands the topic's id: what was
  committed for an earlier topic of the name does not count.
- A generation ends before anything else happens to its partitions. Records are delivered in a generation or not at all;
  what is not delivered is read again, because every generation begins with a seek.
- Offsets without a committed record (markers, compaction) are known from the fetch, and are neither
  gaps nor lag; any other jump was lost here, and is fetched again.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.client import CoordinationType
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    GroupAuthorizationFailedError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from mode import Service

from clipper_agents.kafka.aiokafka_patches import EmptyOffsets
from clipper_agents.kafka.consumer_groups import LeaveByInstance
from clipper_agents.kafka.log_bounds import PositionKeeper
from clipper_agents.kafka.retry import retry
from clipper_agents.streaming.membership import StickyAssignor, make_member
from clipper_agents.streaming.offset_tracker import OffsetTracker, RecordBudget
from clipper_stream.client.kafka import stop
from clipper_topics.connection import KafkaConnection

logger = logging.getLogger(__name__)

METADATA_MAX_AGE_S = 10.0
COMMIT_INTERVAL_S = 0.25
"""Length of a redelivery after a crash."""
RIGHTS_EVERY_S = 1.0
SEEK_WITHIN_S = 30.0
FETCH_MAX_WAIT_S = 0.1
"""At most so long a newly resumed partition waits for a fetch that is under way without it."""
PREFETCH_BACKOFF_S = 0.005
"""aiokafka holds back fetches from a broker while it has undrained records of it; its default is 0.1 s."""
IDLE_WAIT_S = 0.1
RESUMING_WAIT_S = 0.005
"""Wait for records: briefly while a partition is held back, because the wait cannot see that it was released."""
HIGH_WATER_RECORDS, HIGH_WATER_BYTES = 8192, 16 << 20
"""Most that is queued of one partition for its agent, before no more of it is taken."""


class GroupConsumer(Service, ConsumerRebalanceListener):  # type: ignore[misc]  # both are untyped
    """Puts `(tp, records, generation)` into the channels of agents; commits what is finished."""

    def __init__(self, app: Any, kafka: KafkaConnection, instance: str) -> None:
        super().__init__(loop=app.loop, beacon=app.beacon)
        self.app, self.instance, self._kafka = app, instance, kafka
        self.empty = EmptyOffsets()
        self.trackers: dict[tuple[str, int], OffsetTracker] = defaultdict(OffsetTracker)
        self.held_back: set[tuple[str, int]] = set()  # of these an agent takes nothing until something is acknowledged
        self._channels: dict[str, Any] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._waiting: dict[TopicPartition, RecordBudget] = defaultdict(RecordBudget)
        self._full: set[TopicPartition] = set()
        self._next: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._positions = PositionKeeper()
        self._recovering: asyncio.Task[None] | None = None

    def channel(self, topic: str) -> Any:
        """The channel on which an agent gets the records of a topic, with keys and values in bytes."""
        return self._channels.setdefault(topic, self.app.channel())

    def assignment(self) -> set[TopicPartition]:
        return set(self._consumer.assignment()) if self._consumer is not None else set()

    # --- life -------------------------------------------------------------------------------------------------------
    async def on_start(self) -> None:
        self._consumer = consumer = make_member(
            self._kafka,
            self.app.conf.id,
            self.instance,
            StickyAssignor(),
            fetch_wait_s=FETCH_MAX_WAIT_S,
            empty=self.empty,
            metadata_max_age_s=METADATA_MAX_AGE_S,
        )
        await retry("start of the consumer", consumer.start)
        consumer._fetcher._prefetch_backoff = PREFETCH_BACKOFF_S
        consumer._fetcher.pause_s = self.app.pace.pause_s
        self.app.lease.watch(consumer._coordinator, self.instance, self.app.crash)
        consumer.subscribe([*self._channels], listener=self)

    async def on_stop(self) -> None:
        """Commit what is finished, and disconnect; a static member does not leave its group."""
        self._cancel_recovery()
        await self.commit()
        if self._consumer is not None:
            await stop(self._consumer)

    async def on_task_error(self, error: BaseException) -> None:
        """Do nothing about the failure of an agent: the app crashes."""

    # --- the group ----------------------------------------------------------------------------------------------------
    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """End the generation, and drop what was fetched and finished in it."""
        try:
            self.app.end_generation()
            self._cancel_recovery()
            await self.app.on_partitions_revoked.send({*revoked})
        except Exception as error:  # noqa: BLE001 (aiokafka would log it, and go on)
            await self.app.crash(error)
        for each in (self._next, self._full, self.trackers, self._waiting):
            each.clear()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Begin a recovery; the generation begins when it has ended."""
        self.app.end_generation()
        self._cancel_recovery()
        await self._complete(assigned)
        self._recovering = self.app.watched(self._recover({*assigned}))

    def _cancel_recovery(self) -> None:
        if self._recovering is not None:
            self._recovering.cancel()

    async def _recover(self, assigned: set[TopicPartition]) -> None:
        """Restore, then let the inputs flow.

        In this order no record is lost: what is delivered before a position is right would make it jump forward.
        """
        app = self.app
        app.inputs = frozenset(tp.partition for tp in assigned)
        async with app.state_lock.of_all():
            await app.restore({*app.inputs})
        await app.agents.wait_until_agents_started()  # whose channels take what is delivered
        async with asyncio.timeout(SEEK_WITHIN_S):
            await self._seek(assigned)
        app.begin_generation()
        app.inputs_flow.set()

    async def _seek(self, assigned: set[TopicPartition]) -> None:
        """Go to the positions that the app's state was stored with, the committed offsets, or the oldest records."""
        self._committed = await self._committed_offsets(assigned)
        positions = {TopicPartition(*tp): offset for tp, offset in (await self.app.state_positions()).items()}
        for tp, offset in positions.items():
            if offset and offset != self._committed.get(tp):
                logger.info("position from state topic=%s partition=%d offset=%d", *tp, offset)
        self._committed |= positions
        missing = [*(assigned - self._committed.keys())]
        firsts: dict[TopicPartition, int] = {}
        if missing:
            firsts = dict(await retry("first offsets", lambda: self._member.beginning_offsets(missing)))
        for tp, offset in firsts.items():
            if offset:
                logger.info("nothing was committed topic=%s partition=%d: from offset=%d on", *tp, offset)
        self._next = {tp: offset for tp, offset in (self._committed | firsts).items() if tp in assigned}
        for tp, offset in self._next.items():
            self.empty.clear(tp)
            self._member.seek(tp, offset)
        self.trackers.clear()
        self.trackers.update((tp, OffsetTracker(offset)) for tp, offset in self._next.items())
        self._waiting.clear()
        self._full.clear()

    async def committed(self, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return the group's committed offset of each of these partitions; 0 where there is none."""
        asked = [TopicPartition(*tp) for tp in partitions]
        return dict.fromkeys(asked, 0) | await self._committed_offsets(asked)

    async def _committed_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        ids = self.app.topic_ids
        await ids.learn(self._member._client, {tp.topic for tp in partitions})
        found: dict[TopicPartition, int] = {}
        for tp, (offset, topic_id) in (await self._member._coordinator.fetch_committed_offsets(partitions)).items():
            if topic_id in ("", ids.known[tp.topic].hex()):
                found[tp] = offset
            else:
                logger.warning(
                    "committed for an earlier topic of this name topic=%s partition=%d offset=%d", *tp, offset
                )
        return found

    async def _complete(self, assigned: Collection[TopicPartition]) -> None:
        """Have partitions dealt out anew where a topic lacks some that the others have.

        A member that is back within its session gets what it had, also if that was dealt out while a topic was away.
        """
        cluster, coordinator = self._member._client.cluster, self._member._coordinator
        there = [topic for topic in self._channels if cluster.partitions_for_topic(topic)]
        if len({frozenset(tp.partition for tp in assigned if tp.topic == topic) for topic in there}) <= 1:
            return
        logger.warning("partitions of a topic are missing group=%s: joining anew", self.app.conf.id)
        with contextlib.suppress(KafkaError):  # which the coordinator has told
            await coordinator._send_req(LeaveByInstance(self.app.conf.id, [self.instance]))
        coordinator.reset_generation()

    @property
    def _member(self) -> AIOKafkaConsumer:
        assert self._consumer is not None, "not started"
        return self._consumer

    # --- fetching -----------------------------------------------------------------------------------------------------
    @Service.task  # type: ignore[untyped-decorator]
    async def _read(self) -> None:
        with contextlib.suppress(ConsumerStoppedError):
            while not self.should_stop:
                await self._read_once()

    async def _read_once(self) -> None:
        generation = self.app.generation
        wanted = frozenset(self._next.keys() - self._full) if generation >= 0 else frozenset()
        if not wanted:
            await asyncio.sleep(RESUMING_WAIT_S)
            return
        found: dict[TopicPartition, list[Any]] = {}
        try:
            found = await self._fetched(wanted, generation)
        except NoOffsetForPartitionError:  # from before the seek
            pass
        except OffsetOutOfRangeError as error:
            await self._resolve(error)
        if generation == self.app.generation:
            for tp, records in found.items():
                self._deliver(tp, records)
        if found:
            self.app.pace.records = sum(map(len, found.values()))
        else:
            await asyncio.sleep(0)

    async def _fetched(self, wanted: frozenset[TopicPartition], generation: int) -> dict[TopicPartition, list[Any]]:
        """Return the records of these partitions that were fetched, after a time without any at the latest.

        After its end a generation takes none: that would move positions on that the next one has gone to.
        """
        fetcher = self._member._fetcher
        with fetcher._subscriptions.fetch_context():
            if fetcher._closed:
                raise ConsumerStoppedError
            if not (found := await fetcher.fetched_records(wanted)):
                await fetcher.wait_for_records(RESUMING_WAIT_S if self._full else IDLE_WAIT_S)
                if generation == self.app.generation:
                    found = await fetcher.fetched_records(wanted)
        return dict(found)

    async def _resolve(self, error: OffsetOutOfRangeError) -> None:
        generation, before = self.app.generation, dict(self._next)
        for tp, offset in (await self._positions.resolve(self._member, error)).items():
            if generation != self.app.generation or tp not in self._next:
                continue
            if self._next[tp] == before.get(tp):
                self._next[tp] = offset
            else:  # a backlog was left meanwhile
                self._member.seek(tp, self._next[tp])

    def _deliver(self, tp: TopicPartition, records: list[Any]) -> None:
        if tp not in self._next:
            return
        expected = self._reached(tp)
        if records[0].offset < expected:
            records = [record for record in records if record.offset >= expected]
        if not records:
            return
        if records[0].offset > expected:
            logger.warning(
                "fetched records were lost topic=%s partition=%d offsets=%d..%d: fetching them again",
                *tp, expected, records[0].offset - 1,
            )  # fmt: skip
            self.empty.clear(tp)
            self._member.seek(tp, expected)
            return
        self._next[tp] = records[-1].offset + 1
        self._waiting[tp].add(records)
        self._put(tp, records)
        if self._waiting[tp].above(HIGH_WATER_RECORDS, HIGH_WATER_BYTES):
            self._full.add(tp)

    def _put(self, tp: TopicPartition, records: list[Any]) -> None:
        for agents in self._channels[tp.topic]._subscribers:
            agents.queue.put_nowait((tp, records, self.app.generation))

    def _reached(self, tp: TopicPartition) -> int:
        """Return the next offset that may hold a record which was not delivered."""
        self._next[tp] = reached = self.empty.skip(tp, self._next[tp])
        return reached

    def taken(self, tp: TopicPartition, records: list[Any]) -> None:
        self.trackers[tp].admit([record.offset for record in records], records[0].timestamp)
        self.dropped(tp, records)

    def dropped(self, tp: TopicPartition, records: list[Any]) -> None:
        self._waiting[tp].remove(records)
        if not self._waiting[tp].above(HIGH_WATER_RECORDS // 2, HIGH_WATER_BYTES // 2):
            self._full.discard(tp)

    def skip_backlog(self, tp: tuple[str, int], least: int) -> bool:
        """Go on at the end of a partition, and leave what its agent has not taken for later: `OffsetTracker.left`.

        Return False, and do nothing, where that is no more than a number of offsets.
        """
        tp = TopicPartition(*tp)
        tracker, end = self.trackers[tp], self._member.last_stable_offset(tp)
        if end is None or end - tracker.first <= least:
            return False
        tracker.skip_to(end)
        self.empty.clear(tp)
        self._next[tp] = end
        self._member.seek(tp, end)
        return True

    # --- acknowledgements ---------------------------------------------------------------------------------------------
    @Service.timer(COMMIT_INTERVAL_S)  # type: ignore[untyped-decorator]
    async def _commit_often(self) -> None:
        await self.commit()

    async def commit(self) -> None:
        """Commit what is finished, as far as this process has its partitions."""
        offsets = {tp: self.finished_upto(tp) for tp in self._next}
        news = {tp: offset for tp, offset in offsets.items() if offset > self._committed.get(tp, -1)}
        if not news:
            return
        ids = self.app.topic_ids.known
        with contextlib.suppress(CommitFailedError):  # the group has rebalanced
            await self._member.commit({tp: (offset, ids[tp.topic].hex()) for tp, offset in news.items()})
            self._committed |= news

    def acknowledge(self, tp: tuple[str, int], offsets: Iterable[int], generation: int) -> None:
        """Mark records as finished; records of an earlier generation are ignored."""
        if generation == self.app.generation:
            self.trackers[tp].finish(offsets)
        if tp in self.held_back:
            self.held_back.remove(tp)
            self._put(tp, [])

    def finished_upto(self, tp: tuple[str, int]) -> int:
        """Lowest offset that is not finished, as far as this process knows.

        With nothing under way that is the next offset that may hold a record. It never passes an open transaction, and
        is to be compared with ends that do not either: last stable offsets.
        """
        tracker = self.trackers[tp]
        if not tracker.unfinished and not self._waiting[tp].records:
            return self._reached(tp) if tp in self._next else self._committed.get(tp) or 0
        return tracker.committable or self._committed.get(tp) or 0

    def taken_upto(self, tp: tuple[str, int]) -> int:
        """One past the last offset up to which agents have taken all records of a partition, and left none for later.

        Of a log whose last offsets hold no record that is its end.
        """
        tracker = self.trackers[tp]
        if tracker.skipped_range is not None:
            return tracker.skipped_range[0]
        return tracker.first if self._waiting[tp].records or tp not in self._next else self._reached(tp)

    def lag(self) -> dict[tuple[str, int], int]:
        """Offsets of each input partition that are not finished, up to the last stable one as of the last fetch."""
        found: dict[tuple[str, int], int] = {}
        for tp in self.assignment() & self._next.keys():
            if (end := self._member.last_stable_offset(tp)) is not None:
                under_way = self.trackers[tp].unfinished + self._waiting[tp].records
                found[tp] = max(0, end - self._reached(tp)) + under_way
        return found

    @Service.timer(RIGHTS_EVERY_S)  # type: ignore[untyped-decorator]
    async def _check_rights(self) -> None:
        """Crash when the group, or one of its topics, is not allowed: aiokafka would wait for it for ever."""
        client, group = self._member._client, self.app.conf.id
        if topics := client.cluster.unauthorized_topics:
            raise TopicAuthorizationFailedError(sorted(topics))
        if self.assignment() or not client.cluster.brokers():
            return
        try:
            await client.coordinator_lookup(CoordinationType.GROUP, group)
        except GroupAuthorizationFailedError as error:
            raise GroupAuthorizationFailedError(group) from error
        except (KafkaError, OSError, TimeoutError):
            return  # an outage is waited out by those who work
