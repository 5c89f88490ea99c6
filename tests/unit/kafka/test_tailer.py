"""Partitions are read to their ends, and then followed."""

import asyncio

from aiokafka import TopicPartition
from builders.kafka import FakeConsumer

from clipper_agents.kafka.reader import LogReader
from clipper_agents.kafka.retry import WORKERS
from clipper_agents.kafka.tailer import TopicTailer
from clipper_topics.connection import KafkaConnection

FIRST, SECOND = TopicPartition("log", 0), TopicPartition("log", 1)


def tailer_of(consumer):
    tailer = TopicTailer(KafkaConnection("127.0.0.1:1"), isolation_level="read_committed", policy=WORKERS)
    tailer.reader._consumer = consumer
    return tailer


async def offsets(tailer):
    return {tp: [one.offset for one in records] for tp, records in (await tailer.poll(wait_s=0.001)).items()}


def test_what_is_there_is_read_and_then_what_comes():
    consumer = FakeConsumer({FIRST: 2, SECOND: 1})

    async def scenario():
        tailer = tailer_of(consumer)
        await tailer.begin([FIRST, SECOND])
        assert {*tailer.behind} == {FIRST, SECOND}
        assert await offsets(tailer) == {FIRST: [0, 1], SECOND: [0]}
        assert tailer.behind == []
        consumer.ends[FIRST] = 3
        assert tailer.behind == [], "the end is as it was when it was asked for"
        await tailer.look()
        assert tailer.behind == [FIRST]
        assert await offsets(tailer) == {FIRST: [2]}
        assert dict(tailer.positions) == {FIRST: 3, SECOND: 1}

    asyncio.run(scenario())


def test_a_tailer_that_begins_again_goes_on_from_the_offsets_that_it_is_given():
    async def scenario():
        tailer = tailer_of(FakeConsumer({FIRST: 5, SECOND: 5}))
        await tailer.begin([FIRST, SECOND])
        await tailer.begin_at({FIRST: 4})
        return await offsets(tailer)

    assert asyncio.run(scenario()) == {FIRST: [4]}


def test_what_is_skipped_is_not_read_and_the_end_of_the_last_fetch_is_known():
    consumer = FakeConsumer({FIRST: 5, SECOND: 5})
    consumer.open = {FIRST: 2}

    async def scenario():
        tailer = tailer_of(consumer)
        await tailer.begin([FIRST, SECOND])
        reader = tailer.reader
        assert (reader.known_end(FIRST), reader.known_end(SECOND)) == (3, 5), "no transaction is open there"
        reader.skip_to(SECOND, 4)
        assert dict(tailer.positions) == {FIRST: 0, SECOND: 4}
        return await offsets(tailer)

    assert asyncio.run(scenario())[SECOND] == [4]


def test_the_end_of_an_uncommitted_reading_is_that_of_the_log():
    consumer = FakeConsumer({FIRST: 5})
    consumer.open = {FIRST: 2}
    reader = LogReader(KafkaConnection("127.0.0.1:1"), isolation_level="read_uncommitted", policy=WORKERS)
    reader._consumer = consumer
    assert reader.known_end(FIRST) == 5


def test_a_tailer_of_nothing_waits():
    """Without the wait a loop around it would take the whole processor."""

    async def scenario():
        tailer = tailer_of(FakeConsumer({}))
        await tailer.begin([])
        polling = asyncio.ensure_future(tailer.poll(wait_s=60.0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waits = not polling.done()
        polling.cancel()
        return waits

    assert asyncio.run(scenario())
