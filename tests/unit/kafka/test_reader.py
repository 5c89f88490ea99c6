import asyncio
import inspect
from contextlib import aclosing
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from builders.kafka import settle

from clipper_agents.kafka.clients import make_consumer
from clipper_agents.kafka.reader import LogReader, Range
from clipper_agents.kafka.retry import WORKERS, RetryPolicy
from clipper_topics.connection import KafkaConnection

FIRST, SECOND = TopicPartition("log", 0), TopicPartition("log", 1)


class FakeConsumer:
    """Fetches from where each partition stands whenever its caller waits, as aiokafka does."""

    def __init__(self, ends):
        self.ends, self.positions, self.paused, self.fetched_from = ends, {}, set(), []
        self.open, self.leaders = {}, {}
        cluster = SimpleNamespace(leader_for_partition=self.leaders.get)
        self._client = SimpleNamespace(
            cluster=cluster, add_topic=lambda _: None, force_metadata_update=self._learn_leaders
        )

    async def _learn_leaders(self):
        self.leaders |= dict.fromkeys(self.ends, 0)

    def assign(self, partitions):
        assert partitions, "aiokafka's fetching ends for ever when such an assignment is taken back"
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
        assert {*partitions} <= self.leaders.keys(), "aiokafka would send the question and sleep a tenth of a second"
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


def reader_of(consumer, policy=WORKERS):
    reader = LogReader(KafkaConnection("127.0.0.1:1"), isolation_level="read_uncommitted", policy=policy)
    reader._consumer = consumer
    return reader


def read(consumer, starts, policy=WORKERS):
    found = []
    read = reader_of(consumer, policy).read(starts, lambda tp, some: found.extend((tp, one.offset) for one in some))
    assert asyncio.run(read) == len(found)
    return found


def test_nothing_before_the_range_is_fetched():
    """Four mebibytes from the beginning of the log came with each reading of its last records, and stayed in memory."""
    consumer = FakeConsumer({FIRST: 1_000, SECOND: 7})
    assert read(consumer, {FIRST: 998, SECOND: 7}) == [(FIRST, 998), (FIRST, 999)]
    assert consumer.fetched_from == [(0, 998)]


def test_where_there_is_nothing_to_read_nothing_is_assigned():
    """An assignment that was taken back at once ended aiokafka's fetching: feedback then waited for ever."""
    consumer = FakeConsumer({FIRST: 5})
    consumer.unsubscribe = None
    assert read(consumer, {FIRST: 5}) == []


async def test_what_is_behind_the_range_is_not_handed_over_and_nothing_stays_assigned():
    consumer = FakeConsumer({FIRST: 10, SECOND: 10})
    lists = reader_of(consumer).lists({FIRST: Range(3, 5), SECOND: Range(0, 2)})
    found = {tp: [one.offset for one in records] async for tp, records in lists}
    assert found == {FIRST: [3, 4], SECOND: [0, 1]}
    assert (consumer.positions, consumer.paused) == ({}, {FIRST, SECOND})


async def test_a_reading_that_is_given_up_leaves_nothing_assigned():
    """What was fetched would stay in memory."""
    consumer = FakeConsumer({FIRST: 10})
    async with aclosing(reader_of(consumer).lists({FIRST: Range(0, 10)})) as lists:
        await anext(lists)
    assert consumer.positions == {}


def test_a_reading_that_gets_no_further_ends_with_an_error():
    class Standing(FakeConsumer):
        async def getmany(self, *_, **__):
            return await asyncio.sleep(0, {})

    with pytest.raises(TimeoutError):
        read(Standing({FIRST: 10}), {FIRST: 0}, SimpleNamespace(request_s=1.0, within_s=0.0, silence_s=0.05))


def test_workers_wait_without_end_and_commands_for_half_a_minute():
    assert WORKERS.silence_s is None
    assert RetryPolicy(request_s=1.0, within_s=0.0).silence_s == 30.0


@pytest.mark.parametrize(
    ("reading", "default"), [(LogReader, "read_committed"), (make_consumer, inspect.Parameter.empty)]
)
def test_nobody_reads_what_was_not_committed_without_saying_so(reading, default):
    """Forms of one reading had drifted apart: one counted a manifest of an aborted transaction, the other did not."""
    assert inspect.signature(reading).parameters["isolation_level"].default == default


# --- followed -----------------------------------------------------------------------------------------------------
async def following(consumer):
    reader = LogReader(KafkaConnection("127.0.0.1:1"), policy=WORKERS)
    reader._consumer = consumer
    await reader.follow(dict.fromkeys(consumer.ends, 0))
    return reader


async def fetched(reader):
    return {tp: [one.offset for one in records] for tp, records in (await reader.fetch(wait_s=0.001)).items()}


async def test_what_is_there_is_read_and_then_what_comes():
    consumer = FakeConsumer({FIRST: 2, SECOND: 1})
    reader = await following(consumer)
    assert {*reader.behind} == {FIRST, SECOND}
    assert await fetched(reader) == {FIRST: [0, 1], SECOND: [0]}
    assert reader.behind == []
    consumer.ends[FIRST] = 3
    assert reader.behind == [], "the end is as it was when it was asked for"
    reader.ends = await reader.end_offsets([FIRST])
    assert reader.behind == [FIRST]
    assert await fetched(reader) == {FIRST: [2]}
    assert dict(reader.positions) == {FIRST: 3, SECOND: 1}


async def test_a_reader_that_follows_again_goes_on_from_the_offsets_that_it_is_given():
    reader = await following(FakeConsumer({FIRST: 5, SECOND: 5}))
    await reader.follow({FIRST: 4})
    assert await fetched(reader) == {FIRST: [4]}


async def test_what_is_skipped_is_not_read_and_the_end_of_the_last_fetch_is_known():
    consumer = FakeConsumer({FIRST: 5, SECOND: 5})
    consumer.open = {FIRST: 2}
    reader, uncommitted = await following(consumer), reader_of(consumer)
    assert [reader.known_end(tp) for tp in (FIRST, SECOND)] == [3, 5], "no transaction is open in the second"
    assert uncommitted.known_end(FIRST) == 5
    reader.skip_to(SECOND, 4)
    assert dict(reader.positions) == {FIRST: 0, SECOND: 4}
    assert (await fetched(reader))[SECOND] == [4]


async def test_a_reader_that_follows_nothing_waits():
    """Without the wait a loop around it would take the whole processor."""
    polling = asyncio.ensure_future((await following(FakeConsumer({}))).fetch(wait_s=60.0))
    await settle()
    assert not polling.done()
    polling.cancel()
