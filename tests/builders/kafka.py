"""Stand-ins for Kafka's clients and for Faust, for tests of what is put on Faust's plug points."""

import asyncio
from collections import defaultdict
from functools import partial
from types import SimpleNamespace
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaTimeoutError

from clipper_agents.kafka.aiokafka_patches import TransactionMarker
from clipper_agents.kafka.reader import LogReader
from clipper_agents.streaming.outbox import Outbox
from clipper_agents.streaming.partition_writer import PartitionTakenOver


def record(
    offset, value=b"value", key=b"key", topic="topic", partition=0, headers=(), timestamp=1_000_000_000_000, clock=1
):
    """A record as aiokafka's consumer gives it, stamped by the broker, or by its writer where the `clock` is 0."""
    sizes = len(key or b""), len(value or b"")
    return ConsumerRecord(topic, partition, offset, timestamp, clock, key, value, None, *sizes, tuple(headers))


async def settle():
    """Let all that can go on go on, until everything waits."""
    loop: Any = asyncio.get_running_loop()
    await asyncio.sleep(0)
    while loop._ready:
        await asyncio.sleep(0)


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
        return len(self.records)

    def record_count(self):
        return len(self.records)

    def close(self):
        self.closed = True


class FakeProducer:
    """Appends batches to logs in memory.

    So many offers as `away` fail first, with `outage`; each batch fails with `failure`, if there is one. Offsets are
    not told with `hide_offsets`. Batches are acknowledged with `timestamp_ms`, that of the broker (-1: it keeps those
    of who writes), and with `hold` only once `release` is called. `writers` may write in transactions.
    """

    def __init__(self, batch_bytes=1000):
        self.logs, self.writers, self._held, self._batch_bytes = defaultdict(list), {}, [], batch_bytes
        self.away, self.hide_offsets, self.hold, self.timestamp_ms = 0, False, False, -1
        self.failure, self.outage = None, KafkaTimeoutError

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
        offset = -1 if self.hide_offsets else len(self.logs[topic, partition])
        self.logs[topic, partition] += batch.records
        self._held.append((future, SimpleNamespace(offset=offset, timestamp=self.timestamp_ms)))
        if not self.hold:
            self.release()
        return future

    def release(self):
        for future, found in self._held:
            future.set_result(found)
        self._held.clear()

    def mark(self, topic, partition=0):
        """Somebody takes the partition over; its marker stands where a record of nobody does."""
        return {TopicPartition(topic, partition): self.append(topic, partition, None, None)}

    def append(self, topic, partition, key, value, headers=()):
        self.logs[topic, partition].append((key, value, list(headers)))
        return len(self.logs[topic, partition]) - 1


class FakeWriter:
    """The one writer of a partition in the logs of a `FakeProducer`, until another takes it over."""

    def __init__(self, producer, topic, partition, marked=()):
        self._producer, self._place = producer, (topic, partition)

    async def take_over(self):
        self._producer.writers[self._place] = self
        return {TopicPartition(*self._place): TransactionMarker(*self._place, 1, 1)}

    async def write(self, records, beside):
        if self._producer.writers.get(self._place) is not self:
            raise PartitionTakenOver
        outbox, (own, partition) = Outbox(self._producer), self._place
        found = [await outbox.send(topic, partition, some) for topic, some in {**beside, own: records}.items()]
        return found[-1]

    async def stop(self):
        self._producer.writers.pop(self._place, None)


class FakeLogReader:
    def __init__(self, producer, timestamp_ms=1_000_000_000_000):
        self._logs, self._timestamp_ms = producer.logs, timestamp_ms
        self.reads, self.stale_ends = 0, []  # the latter are said first about any partition's end, one a question
        self.older = set()  # topics whose records are older than any time that is asked for

    async def end_offsets(self, partitions):
        stale = self.stale_ends.pop(0) if self.stale_ends else None
        return {tp: len(self._logs.get(tp, ())) if stale is None else stale for tp in partitions}

    async def offsets_at(self, partitions, _):
        return {tp: 0 for tp in partitions if self._logs.get(tp) and tp.topic not in self.older}

    async def proven_ends(self, starts, markers):
        ends = {tp: len(self._logs.get(tp, ())) for tp in markers}
        assert all(starts[tp] <= end for tp, end in ends.items())
        return ends

    async def read(self, starts, apply, ends=None, since_ms=None):
        await asyncio.sleep(0)
        self.reads, total = self.reads + 1, 0
        for tp, start in starts.items():
            log = [*enumerate(self._logs.get(tp, []))][start or 0 : (ends or {}).get(tp)]
            of_tp = partial(record, topic=tp.topic, partition=tp.partition, timestamp=self._timestamp_ms)
            found = [of_tp(offset, value, key, headers=headers) for offset, (key, value, headers) in log]
            total += len(found)
            if found:
                apply(TopicPartition(*tp), found)
        return total


class BehindReader(LogReader):
    """Asks a broker that leads no more, and does not know it: a log ends two offsets earlier there."""

    async def end_offsets(self, partitions):
        return {tp: max(0, end - 2) for tp, end in (await super().end_offsets(partitions)).items()}
