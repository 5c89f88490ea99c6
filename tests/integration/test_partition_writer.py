import asyncio
import contextlib

import pytest
from aiokafka import TopicPartition
from builders.kafka import BehindReader

from clipper_agents.kafka.clients import transaction
from clipper_agents.kafka.reader import open_reader
from clipper_agents.kafka.retry import WORKERS
from clipper_agents.streaming.outbox import Outbox
from clipper_agents.streaming.partition_writer import PartitionTakenOver, PartitionWriter

pytestmark = pytest.mark.faults


@pytest.fixture
async def writers(kafka, catalogue):
    """Makes writers of partition 0 of the table, which leave at the end."""
    made = []

    def make(*marked):
        made.append(PartitionWriter(kafka, catalogue.selection_changelog, 0, marked))
        return made[-1]

    yield make
    for writer in made:
        await writer.stop()


async def read(kafka, topic):
    async with open_reader(kafka) as reader:
        return [(one.key, one.value) for one in await reader.read_all([TopicPartition(topic, 0)])]


async def test_who_takes_over_shuts_the_earlier_writer_out_also_of_what_it_writes_beside(kafka, catalogue, writers):
    topic, acks = catalogue.selection_changelog, catalogue.feedback_acks
    idle, first, second = (writers() for _ in range(3))
    await idle.take_over()
    await first.take_over()
    await first.write([(b"a", b"1", ())], {acks: [(b"q", b"told", ())]})
    await second.take_over()
    for earlier in (idle, first):
        with pytest.raises(PartitionTakenOver, match=f"another process writes partition 0 of {topic}"):
            await earlier.write([(b"a", b"late", ())], {acks: [(b"q", b"late", ())]})
    await second.write([(b"b", b"2", ()), (b"a", b"3", ())])
    assert await read(kafka, topic) == [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]
    assert await read(kafka, acks) == [(b"q", b"told")]
    await second.take_over()  # again, after a rebalance
    await second.write([(b"b", b"4", ())])
    assert (await read(kafka, topic))[-1] == (b"b", b"4")


async def test_what_a_writer_has_begun_and_not_ended_is_taken_back(kafka, catalogue, writers):
    topic, dead, living = catalogue.selection_changelog, writers(), writers()
    await dead.take_over()
    with contextlib.suppress(ConnectionError):
        async with transaction(dead._producer):
            await Outbox(dead._producer).send(topic, 0, [(b"a", b"half", ())])
            raise ConnectionError
    await living.take_over()
    await living.write([(b"a", b"whole", ())])
    assert await read(kafka, topic) == [(b"a", b"whole")]


async def test_the_end_of_a_log_is_where_the_own_marker_stands_and_it_is_waited_for(kafka, catalogue, writers):
    """A broker that leads no more, and does not know it, has neither the marker nor what stands before it."""
    logs = [TopicPartition(name, 0) for name in (catalogue.selection_changelog, catalogue.predictions)]
    writer = writers(catalogue.predictions)
    async with open_reader(kafka) as reader:
        assert await reader.end_offsets(logs) == dict.fromkeys(logs, 0)
        markers = await writer.take_over()
        later = {tp: one._replace(epoch=one.epoch + 1) for tp, one in markers.items()}
        waiting = asyncio.ensure_future(reader.proven_ends(dict.fromkeys(logs, 0), later))
        await writer.write([(b"a", b"1", ())])
        assert not waiting.done(), "nobody has written these markers yet"
        assert await writer.take_over() == later
        assert await waiting == {logs[0]: 3, logs[1]: 1}, "behind a marker, a row and the marker of its step"
        assert await reader.proven_ends({}, {}) == {}
    for isolation_level in ("read_committed", "read_uncommitted"):
        async with open_reader(kafka, isolation_level=isolation_level) as reader:
            assert await reader.read_all([logs[1]]) == [], "nobody is given a marker"


async def test_a_log_is_read_to_the_own_marker_whatever_end_a_broker_names(kafka, catalogue, writers, at):
    tp = TopicPartition(catalogue.predictions, 0)
    await at.send(tp.topic, *[b"prediction"] * 3)
    writer = writers(tp.topic)
    reader = BehindReader(kafka, policy=WORKERS)
    named = await reader.end_offsets([tp])
    markers = await writer.take_over()
    ends = await reader.proven_ends(dict.fromkeys(markers, 0) | named, markers)
    assert (named[tp], ends[tp]) == (1, 3)
    assert await reader.read({tp: None}, lambda _, records: None) < 3
    assert await reader.read({tp: None}, lambda _, records: None, ends) == 3
    await reader.close()
