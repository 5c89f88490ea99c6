"""Stand-ins for Kafka's clients and for Faust, for tests of what is put on Faust's plug points."""

import asyncio
import struct
from types import SimpleNamespace

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaTimeoutError

from clipper_agents.kafka.aiokafka_patches import TransactionMarker
from clipper_agents.kafka.reader import LogReader
from clipper_agents.streaming.outbox import Outbox
from clipper_agents.streaming.partition_writer import PartitionTakenOver


def record(offset, value=b"value", key=b"key", topic="topic", partition=0, headers=(), timestamp=1_000_000_000_000):
    """A record as aiokafka's consumer gives it."""
    size = len(value or b"")
    return ConsumerRecord(
        topic, partition, offset, timestamp, 0, key, value, None, len(key or b""), size, tuple(headers)
    )


class Tasks:
    """Runs work as an app does, and keeps what failed."""

    def __init__(self):
        self.failures = []

    def watched(self, work):
        task = asyncio.create_task(work)
        task.add_done_callback(self.watch)
        return task

    def watch(self, task):
        if not task.cancelled() and task.exception() is not None:
            self.failures.append(task.exception())


class FakeBatch:
    """A batch that holds records up to a number of bytes, and one of any size, as aiokafka's does."""

    def __init__(self, size_bytes):
        self._left, self.records, self.closed = size_bytes, [], False

    def append(self, *, key, value, timestamp, headers):
        size = len(key or b"") + len(value or b"")
        if self.records and size > self._left:
            return None
        self._left -= size
        self.records.append((key, value, headers))
        return struct.Struct("q")

    def record_count(self):
        return len(self.records)

    def close(self):
        self.closed = True


class FakeMetadata:
    def __init__(self, offset, timestamp=-1):
        self.offset, self.timestamp = offset, timestamp


class FakeProducer:
    """Appends batches to logs in memory.

    Attributes:
        logs: Records by topic and partition.
        away: So many offers fail first, with `outage`.
        hide_offsets: Acknowledge without saying where the batch stands.
        timestamp_ms: Of the broker in acknowledgements; -1 for a topic that keeps the timestamps of those who write.
        writers: Who may write in transactions, by topic and partition: a `FakeWriter`.
        hold: When set, batches are acknowledged only once `release` is called.
    """

    def __init__(self, batch_bytes=1000):
        self.logs, self.away, self.hide_offsets, self.hold = {}, 0, False, False
        self.writers = {}
        self.timestamp_ms = -1
        self.failure, self.outage = None, KafkaTimeoutError
        self._batch_bytes, self._held = batch_bytes, []

    def create_batch(self):
        return FakeBatch(self._batch_bytes)

    async def send_batch(self, batch, topic, *, partition):
        assert batch.closed
        if self.away:
            self.away -= 1
            raise self.outage
        future = asyncio.get_running_loop().create_future()
        if self.failure is not None:
            future.set_exception(self.failure)
            return future
        log = self.logs.setdefault((topic, partition), [])
        offset = len(log)
        log += batch.records
        found = FakeMetadata(-1 if self.hide_offsets else offset, self.timestamp_ms)
        if self.hold:
            self._held.append((future, found))
        else:
            future.set_result(found)
        return future

    def release(self):
        for future, found in self._held:
            future.set_result(found)
        self._held.clear()

    def mark(self, topic, partition=0):
        """Somebody takes the partition over; its marker stands where a record of nobody does."""
        tp = TopicPartition(topic, partition)
        return {tp: self.append(topic, partition, None, None)}

    def append(self, topic, partition, key, value, headers=()):
        """Somebody else writes."""
        log = self.logs.setdefault((topic, partition), [])
        log.append((key, value, list(headers)))
        return len(log) - 1


class FakeWriter:
    """The one writer of a partition in the logs of a `FakeProducer`, until another takes it over."""

    def __init__(self, producer, topic, partition, marked=()):
        self._producer, self._place = producer, (topic, partition)

    async def take_over(self):
        self._producer.writers[self._place] = self
        tp = TopicPartition(*self._place)
        return {tp: TransactionMarker(tp.topic, tp.partition, 1, 1)}

    async def write(self, records, beside):
        if self._producer.writers.get(self._place) is not self:
            raise PartitionTakenOver
        outbox, partition = Outbox(self._producer), self._place[1]
        for topic, others in beside.items():
            await outbox.send(topic, partition, others)
        return await outbox.send(self._place[0], partition, records)

    async def stop(self):
        self._producer.writers.pop(self._place, None)


class FakeLogReader:
    """Reads the logs of a `FakeProducer`."""

    def __init__(self, producer, timestamp_ms=1_000_000_000_000):
        self._logs, self._timestamp_ms = producer.logs, timestamp_ms
        self.reads = 0
        self.stale_ends = []
        """What is said first about any partition's end, one for each time that it is asked for."""

    async def end_offsets(self, partitions):
        if self.stale_ends:
            return dict.fromkeys(partitions, self.stale_ends.pop(0))
        return {tp: len(self._logs.get((tp.topic, tp.partition), ())) for tp in partitions}

    async def proven_ends(self, starts, markers):
        assert all(starts[tp] <= len(self._logs.get((tp.topic, tp.partition), ())) for tp in markers)
        return {tp: len(self._logs.get((tp.topic, tp.partition), ())) for tp in markers}

    async def read(self, starts, apply, ends=None, since_ms=None):
        await asyncio.sleep(0)
        self.reads += 1
        total = 0
        for tp, start in starts.items():
            end = (ends or {}).get(tp)
            log = self._logs.get((tp.topic, tp.partition), [])[: end if end is not None else None]
            found = [
                record(offset, value, key, tp.topic, tp.partition, headers, self._timestamp_ms)
                for offset, (key, value, headers) in enumerate(log)
                if offset >= (start or 0)
            ]
            total += len(found)
            if found:
                apply(TopicPartition(tp.topic, tp.partition), found)
        return total


class BehindReader(LogReader):
    """Asks a broker that leads no more, and does not know it: a log ends two offsets earlier there."""

    async def end_offsets(self, partitions):
        return {tp: max(0, end - 2) for tp, end in (await super().end_offsets(partitions)).items()}


class FakeConsumer:
    """Fetches from where each partition stands whenever its caller waits, as aiokafka does."""

    def __init__(self, ends):
        self.ends, self.positions, self.paused, self.fetched_from = ends, {}, set(), []
        self.open = {}
        self.leaders = dict.fromkeys(ends, 0)
        self._client = SimpleNamespace(
            cluster=SimpleNamespace(leader_for_partition=self.leaders.get),
            add_topic=lambda _: None,
            force_metadata_update=self._learn_leaders,
        )

    async def _learn_leaders(self):
        self.leaders |= dict.fromkeys(self.ends, 0)

    def assign(self, partitions):
        self.positions = dict.fromkeys(partitions, 0)

    def unsubscribe(self):
        self.positions = {}

    def pause(self, *partitions):
        self.paused |= {*partitions}

    def seek(self, tp, offset):
        self.positions[tp] = offset

    async def _waited(self):
        self.fetched_from += [(tp.partition, at) for tp, at in self.positions.items() if tp not in self.paused]
        await asyncio.sleep(0)

    async def end_offsets(self, partitions):
        await self._waited()
        return {tp: self.ends[tp] for tp in partitions}

    async def beginning_offsets(self, partitions):
        await self._waited()
        return dict.fromkeys(partitions, 0)

    async def position(self, tp):
        return self.positions[tp]

    def highwater(self, tp):
        return self.ends[tp]

    def last_stable_offset(self, tp):
        return self.ends[tp] - self.open.get(tp, 0)

    async def getmany(self, *partitions, timeout_ms, max_records=None):
        await self._waited()
        found = {}
        for tp in partitions:
            if offsets := range(self.positions[tp], self.ends[tp]):
                found[tp] = [SimpleNamespace(offset=offset) for offset in offsets]
                self.positions[tp] = self.ends[tp]
        return found
