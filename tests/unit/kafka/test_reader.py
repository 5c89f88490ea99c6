"""A range of a log is fetched from its first record on, and from nowhere else."""

import asyncio
import inspect
from contextlib import aclosing
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from builders.kafka import FakeConsumer

from clipper_agents.kafka.clients import make_consumer
from clipper_agents.kafka.reader import LogReader, Range, open_reader, read_topic
from clipper_agents.kafka.retry import WORKERS, RetryPolicy
from clipper_agents.kafka.tailer import TopicTailer, open_tailer
from clipper_topics.connection import KafkaConnection

FIRST, SECOND = TopicPartition("log", 0), TopicPartition("log", 1)


def reader_of(consumer, policy=WORKERS):
    reader = LogReader(KafkaConnection("127.0.0.1:1"), isolation_level="read_uncommitted", policy=policy)
    reader._consumer = consumer
    return reader


def test_nothing_before_the_range_is_fetched():
    """Four mebibytes from the beginning of the log came with each reading of its last records, and stayed in memory."""
    consumer = FakeConsumer({FIRST: 1_000, SECOND: 7})
    seen = []
    read = reader_of(consumer).read(
        {FIRST: 998, SECOND: 7}, lambda tp, records: seen.extend((tp, one.offset) for one in records)
    )
    assert asyncio.run(read) == 2
    assert seen == [(FIRST, 998), (FIRST, 999)]
    assert consumer.fetched_from == [(0, 998)]


def test_leaders_are_asked_for_before_offsets():
    """aiokafka asks for a leader that it does not know when it needs it, and sleeps a tenth of a second meanwhile."""
    consumer = FakeConsumer({FIRST: 5})
    consumer.leaders.clear()
    known, answer = [], consumer.end_offsets

    async def end_offsets(partitions):
        known.append(set(consumer.leaders) >= set(partitions))
        return await answer(partitions)

    consumer.end_offsets = end_offsets
    assert asyncio.run(reader_of(consumer).end_offsets([FIRST])) == {FIRST: 5}
    assert known == [True]


def test_where_there_is_nothing_to_read_nothing_is_assigned():
    """An assignment that was taken back at once ended aiokafka's fetching: feedback then waited for ever."""
    consumer = FakeConsumer({FIRST: 5})
    consumer.assign = consumer.unsubscribe = None
    assert asyncio.run(reader_of(consumer).read({FIRST: 5}, None)) == 0


def test_what_is_behind_the_range_is_not_handed_over_and_nothing_stays_assigned():
    consumer = FakeConsumer({FIRST: 10, SECOND: 10})

    async def read():
        lists = reader_of(consumer).lists({FIRST: Range(3, 5), SECOND: Range(0, 2)})
        return {tp: [one.offset for one in records] async for tp, records in lists}

    assert asyncio.run(read()) == {FIRST: [3, 4], SECOND: [0, 1]}
    assert consumer.positions == {}
    assert consumer.paused == {FIRST, SECOND}


def test_a_reading_that_is_given_up_leaves_nothing_assigned():
    """What was fetched would stay in memory."""
    consumer = FakeConsumer({FIRST: 10})

    async def begin():
        async with aclosing(reader_of(consumer).lists({FIRST: Range(0, 10)})) as lists:
            await anext(lists)

    asyncio.run(begin())
    assert consumer.positions == {}


def test_a_reading_that_gets_no_further_ends_with_an_error():
    consumer = FakeConsumer({FIRST: 10})
    consumer.getmany = _nothing
    policy = SimpleNamespace(request_s=1.0, within_s=0.0, silence_s=0.05)
    with pytest.raises(TimeoutError):
        asyncio.run(reader_of(consumer, policy).read({FIRST: 0}, None))


def test_workers_wait_without_end_and_commands_for_half_a_minute():
    assert WORKERS.silence_s is None
    assert RetryPolicy(request_s=1.0, within_s=0.0).silence_s == 30.0


@pytest.mark.parametrize("reading", [LogReader, TopicTailer, open_reader, open_tailer, read_topic, make_consumer])
def test_nobody_reads_without_saying_the_isolation_level(reading):
    """Forms of one reading had drifted apart: one counted a manifest of an aborted transaction, the other did not."""
    assert inspect.signature(reading).parameters["isolation_level"].default is inspect.Parameter.empty


async def _nothing(*_, **__):
    await asyncio.sleep(0.001)
    return {}
