"""Faust's consumer, delivering whole fetched lists and committing what is finished.

Rules of this file:
- aiokafka is handed a frozen copy of the active partitions: it loses records when Faust's live set empties meanwhile.
- What is committed is `OffsetTracker.committable` and nothing else; Faust's own ack lists stay empty.
- A generation ends before anything else happens to its partitions. Records are delivered in a generation or not at all;
  what is not delivered is read again, because every generation begins with a seek.
- Offsets without a committed record (markers, compaction) are known from the fetch, and are neither
  gaps nor lag; any other jump was lost here, and is fetched again.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from aiokafka.client import CoordinationType
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from clipper_agents.kafka.aiokafka_patches import EmptyOffsets
from clipper_agents.kafka.consumer_groups import LeaveByInstance
from clipper_agents.kafka.log_bounds import PositionKeeper
from clipper_agents.kafka.retry import retry
from clipper_agents.streaming.consumer_thread import InlineConsumerThread
from clipper_agents.streaming.offset_tracker import OffsetTracker, RecordBudget
from clipper_agents.streaming.outbox import StrictProducer

logger = logging.getLogger(__name__)

IDLE_WAIT_S = 0.1
RESUMING_WAIT_S = 0.005
"""Wait for records: briefly while a partition is held back, because the wait cannot see that it was released."""
HIGH_WATER_RECORDS, HIGH_WATER_BYTES = 8192, 16 << 20
"""Most that is queued of one partition for its agent, before the partition is paused."""


class BulkConsumer(driver.Consumer):  # type: ignore[misc]
    """Puts `(tp, records, generation)` into the channels' queues; commits what is finished."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.empty = EmptyOffsets()
        super().__init__(*args, **kwargs)
        self.trackers: dict[TP, OffsetTracker] = defaultdict(OffsetTracker)
        self._waiting: dict[TP, RecordBudget] = defaultdict(RecordBudget)
        self.held_back: set[TP] = set()  # of these an agent takes nothing until something is acknowledged
        self._next: dict[TP, int] = {}
        self._positions = PositionKeeper()
        self._fetch_in_flight: asyncio.Future[None] | None = None

    def _new_consumer_thread(self) -> InlineConsumerThread:
        return InlineConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # --- fetching -----------------------------------------------------------------------------------------------
    def _get_active_partitions(self) -> set[TP]:
        """Return what Faust's does, without a look at the type of each."""
        active: set[TP] | None = self._active_partitions
        return self._set_active_tps(self.assignment()) if active is None else active

    async def _wait_next_records(self, timeout: float) -> tuple[dict[Any, list[Any]], set[TP]]:
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        live = self._get_active_partitions()
        frozen = frozenset(live)
        if not frozen:
            await asyncio.sleep(RESUMING_WAIT_S)
            return {}, live
        self._fetch_in_flight = done = asyncio.get_running_loop().create_future()
        try:
            wait_s = RESUMING_WAIT_S if self._buffered_partitions else min(timeout, IDLE_WAIT_S)
            records = await self._getmany(active_partitions=frozen, timeout=wait_s) or {}
            return {tp: found for tp, found in records.items() if tp in live or tp in self._buffered_partitions}, live
        except NoOffsetForPartitionError:  # from before `perform_seek`
            return {}, live
        except OffsetOutOfRangeError as error:
            await self._resolve(error)
            return {}, live
        finally:
            done.set_result(None)

    async def _resolve(self, error: OffsetOutOfRangeError) -> None:
        generation, before = self.app.generation, dict(self._next)
        moved = await self._positions.resolve(self._thread._ensure_consumer(), error)
        for tp, offset in ((TP(*tp), offset) for tp, offset in moved.items()):
            if generation != self.app.generation or tp not in self._next:
                continue
            if self._next[tp] == before.get(tp):
                self._next[tp] = offset
            else:  # a backlog was left meanwhile
                self._thread.seek(tp, self._next[tp])

    async def settle(self) -> None:
        """Wait until no fetch is under way that may still hold records of partitions that were just paused."""
        if self._fetch_in_flight is not None and not self._fetch_in_flight.done():
            await asyncio.wait([self._fetch_in_flight])

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                await self._drain_once()
        except (asyncio.CancelledError, *self.consumer_stopped_errors):
            if not self.transport.app.should_stop:
                raise

    async def _drain_once(self) -> None:
        records, _ = await self._wait_next_records(1.0)
        if self.flow_active and self.app.generation >= 0 and not self.should_stop:
            for tp, found in records.items():
                self._deliver(TP(tp[0], tp[1]), found)
        if not records:
            await asyncio.sleep(0)

    def _deliver(self, tp: TP, records: list[Any]) -> None:
        if tp not in self._next:
            return
        expected = self._reached(tp)
        if records[0].offset < expected:
            records = [record for record in records if record.offset >= expected]
        if not records:
            return
        if records[0].offset > expected:
            self._fetch_again(tp, expected, records[0].offset)
            return
        self._next[tp] = records[-1].offset + 1
        self._read_offset[tp] = records[-1].offset
        for channel in self.app.topics._tp_index[tp]:
            self._waiting[tp].add(records)
            channel.queue.put_nowait((tp, records, self.app.generation))
        if self._waiting[tp].above(HIGH_WATER_RECORDS, HIGH_WATER_BYTES):
            self.on_buffer_full(tp)

    def _reached(self, tp: TP) -> int:
        """Return the next offset that may hold a record which was not delivered."""
        self._next[tp] = reached = self.empty.skip(tp, self._next[tp])
        return reached

    def _fetch_again(self, tp: TP, expected: int, found: int) -> None:
        logger.warning(
            "fetched records were lost topic=%s partition=%d offsets=%d..%d: fetching them again",
            tp.topic, tp.partition, expected, found - 1,
        )  # fmt: skip
        self.empty.clear(tp)
        self._thread.seek(tp, expected)

    def taken(self, tp: TP, records: list[Any]) -> None:
        """Note that an agent has taken these records of the partition off its queue."""
        self.trackers[tp].admit([record.offset for record in records], records[0].timestamp)
        self.dropped(tp, records)

    def dropped(self, tp: TP, records: list[Any]) -> None:
        """Note that these records of the partition wait no more for its agent."""
        self._waiting[tp].remove(records)
        low = not self._waiting[tp].above(HIGH_WATER_RECORDS // 2, HIGH_WATER_BYTES // 2)
        if low and tp in self._buffered_partitions:
            self.on_buffer_drop(tp)

    def skip_backlog(self, tp: TP, least: int) -> bool:
        """Go on at the end of a partition, and leave what its agent has not taken for later, if that is more."""
        tracker = self.trackers[tp]
        end = self._thread._ensure_consumer().last_stable_offset(driver.ensure_aiokafka_TP(tp))
        if end is None or end - tracker.first <= least:
            return False
        tracker.skip_to(end)
        self.empty.clear(tp)
        self._next[tp] = end
        self._thread.seek(tp, end)
        return True

    # --- positions ------------------------------------------------------------------------------------------------
    async def perform_seek(self) -> None:
        """Seek to the positions that the app's state was stored with, the committed offsets, or the oldest records."""
        await super().perform_seek()
        positions = await self.app.state_positions() if self.app.state_positions else {}
        starts = {tp: offset for tp, offset in self._committed_offset.items() if offset is not None} | positions
        firsts = await self._first_offsets(self.assignment() - starts.keys())
        assigned = self.assignment()
        for tp, offset in positions.items():
            if tp in assigned and offset != self._committed_offset.get(tp):
                level = logging.INFO if offset else logging.DEBUG
                logger.log(level, "position from state topic=%s partition=%d offset=%d", *tp, offset)
                self._committed_offset[tp] = offset
        for tp, offset in firsts.items():
            level = logging.INFO if offset else logging.DEBUG  # nothing was there before, so nothing is skipped
            logger.log(level, "nothing was committed topic=%s partition=%d: from offset=%d on", *tp, offset)
        self._next = {tp: offset for tp, offset in (starts | firsts).items() if tp in assigned}
        for tp, offset in self._next.items():
            self.empty.clear(tp)
            await self.seek(tp, offset)
        self.trackers.clear()
        self.trackers.update((tp, OffsetTracker(offset)) for tp, offset in self._next.items())
        self._waiting.clear()

    async def committed(self, partitions: Iterable[tuple[str, int]]) -> dict[TP, int]:
        """Return the group's committed offset of each of these partitions; 0 where there is none."""
        asked = [driver.ensure_aiokafka_TP(TP(*tp)) for tp in partitions]
        found = await self._thread.committed_offsets(asked)
        return {TP(*tp): found.get(tp, 0) for tp in asked}

    async def _first_offsets(self, partitions: Iterable[TP]) -> dict[TP, int]:
        consumer, changelogs = self._thread._ensure_consumer(), self.app.tables.changelog_topics
        asked = [driver.ensure_aiokafka_TP(tp) for tp in partitions if tp.topic not in changelogs]
        if not asked:
            return {}
        found = await retry("first offsets", lambda: consumer.beginning_offsets(asked))
        return {TP(*tp): offset for tp, offset in found.items()}

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """End the generation, and drop what was fetched and finished in it."""
        self.app.end_generation()
        self._buffered_partitions.clear()
        await super().on_partitions_revoked(revoked)
        self._next.clear()
        self.trackers.clear()
        self._waiting.clear()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Begin a recovery; the generation begins when it has ended."""
        self.app.end_generation()
        await self._complete(assigned)
        await super().on_partitions_assigned(assigned, generation_id)

    async def _complete(self, assigned: set[TP]) -> None:
        """Have partitions dealt out anew where a topic lacks some that the others have.

        A member that is back within its session gets what it had, also if that was dealt out while a topic was away.
        """
        consumer = self._thread._ensure_consumer()
        cluster, coordinator = consumer._client.cluster, consumer._coordinator
        there = [topic for topic in consumer.subscription() if cluster.partitions_for_topic(topic)]
        if len({frozenset(tp.partition for tp in assigned if tp.topic == topic) for topic in there}) <= 1:
            return
        logger.warning("partitions of a topic are missing group=%s: joining anew", self.app.conf.id)
        leave = LeaveByInstance(self.app.conf.id, [self.app.conf.consumer_group_instance_id])
        with contextlib.suppress(KafkaError):  # which the coordinator has told
            await coordinator._send_req(leave)
        coordinator.reset_generation()

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: Faust would miss its own traces of fetches and streams, and warn."""

    # --- acks -----------------------------------------------------------------------------------------------------
    def _filter_tps_with_pending_acks(self, topics: Any = None) -> list[TP]:
        return [tp for tp in self._next if topics is None or tp in topics or tp.topic in topics]

    def _new_offset(self, tp: TP) -> int | None:
        return self.finished_upto(tp)

    def acknowledge(self, tp: TP, offsets: Iterable[int], generation: int) -> None:
        """Mark records as finished; records of an earlier generation are ignored."""
        if generation == self.app.generation:
            self.trackers[tp].finish(offsets)
        if tp in self.held_back:
            self.held_back.remove(tp)
            for channel in self.app.topics._tp_index[tp]:
                channel.queue.put_nowait((tp, [], self.app.generation))

    def finished_upto(self, tp: TP) -> int:
        """Lowest offset that is not finished, as far as this process knows.

        With nothing under way that is the next offset that may hold a record. It never passes an open transaction, and
        is to be compared with ends that do not either: last stable offsets.
        """
        tracker = self.trackers.get(tp)
        if (tracker is None or not tracker.unfinished) and not self._waiting[tp].records:
            return self._reached(tp) if tp in self._next else self._committed_offset.get(tp) or 0
        return (tracker.committable if tracker is not None else None) or self._committed_offset.get(tp) or 0

    def taken_upto(self, tp: TP) -> int:
        """One past the last offset up to which agents have taken all records of a partition, and left none for later.

        Of a log whose last offsets hold no record that is its end.
        """
        tracker = self.trackers[tp]
        if tracker.skipped_range is not None:
            return tracker.skipped_range[0]
        return tracker.first if self._waiting[tp].records or tp not in self._next else self._reached(tp)

    async def check_rights(self) -> None:
        """Raise when this user may not use the group, or not see one of its topics, as far as the brokers say."""
        consumer = self._thread._consumer if self._thread is not None else None
        if consumer is None or not consumer._client.cluster.brokers():
            return
        if topics := consumer._client.cluster.unauthorized_topics:
            raise TopicAuthorizationFailedError(sorted(topics))
        if self.assignment():
            return
        group = self.app.conf.id
        try:
            await consumer._client.coordinator_lookup(CoordinationType.GROUP, group)
        except GroupAuthorizationFailedError as error:
            raise GroupAuthorizationFailedError(group) from error
        except (KafkaError, OSError, TimeoutError):
            return  # an outage is waited out by those who work

    def lag(self) -> dict[TP, int]:
        """Offsets of each input partition that are not finished, up to the last stable one as of the last fetch."""
        found: dict[TP, int] = {}
        for tp in self.assignment() & self._next.keys():
            end = self._thread._ensure_consumer().last_stable_offset(driver.ensure_aiokafka_TP(tp))
            if end is not None:
                under_way = self.trackers[tp].unfinished if tp in self.trackers else 0
                found[tp] = max(0, end - self._reached(tp)) + self._waiting[tp].records + under_way
        return found


class BulkTransport(driver.Transport):  # type: ignore[misc]
    """Faust's transport with this project's consumer and producer."""

    Consumer = BulkConsumer
    Producer = StrictProducer
