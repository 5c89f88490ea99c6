"""What the consumer delivers and commits: whole lists, no record twice, no jump believed at once, one generation."""

import asyncio
from collections import defaultdict, deque
from types import SimpleNamespace
from typing import Any

import pytest
from builders.kafka import record
from faust.types import TP

from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.consumer import (
    HIGH_WATER_BYTES,
    HIGH_WATER_RECORDS,
    RESTLESS_TIMES,
    Backlog,
    BulkConsumer,
    Frontier,
)
from clipper_agents.streaming.stream import ChunkStream

P0, P1 = TP("topic", 0), TP("topic", 1)


class FakeThread:
    def __init__(self):
        self.seeks, self.positions = [], {}

    def seek(self, tp, offset):
        self.seeks.append((tp.partition, offset))

    def _ensure_consumer(self):
        states = {tp: SimpleNamespace(position=at, has_valid_position=True) for tp, at in self.positions.items()}
        assignment = SimpleNamespace(state_value=lambda tp: states.get(TP(tp.topic, tp.partition)))
        return SimpleNamespace(_subscription=SimpleNamespace(subscription=SimpleNamespace(assignment=assignment)))


class Channel:
    """A topic's queue, as Faust's channels are."""

    def __init__(self):
        self.queue = asyncio.Queue()

    async def __anext__(self):
        return await self.queue.get()


class App(SimpleNamespace):
    generation, rebalances, _generations, in_recovery = -1, 0, 0, False
    begin_generation, end_generation = ClipperApp.begin_generation, ClipperApp.end_generation


@pytest.fixture
def channel():
    return Channel()


@pytest.fixture
def consumer(channel):
    """A consumer without Kafka, and without Faust's start."""
    found: Any = object.__new__(BulkConsumer)
    found.app = App(topics=SimpleNamespace(_tp_index=defaultdict(lambda: [channel])), consumer=found)
    found.frontiers, found._waiting = defaultdict(Frontier), defaultdict(Backlog)
    found._next, found._doubted, found._read_offset = {}, {}, {}
    found._committed_offset = defaultdict(lambda: None)
    found._active_partitions, found._buffered_partitions = {P0, P1}, set()
    found._thread = FakeThread()
    found.app.begin_generation()
    return found


def delivered(channel):
    found = []
    while not channel.queue.empty():
        tp, records, generation = channel.queue.get_nowait()
        found.append((tp.partition, [one.offset for one in records], generation))
    return found


def records(*offsets, value=b"value"):
    return [record(offset, value) for offset in offsets]


def test_a_fetched_list_is_delivered_as_it_is(consumer, channel):
    consumer._deliver(P0, records(5, 6, 9))
    consumer._deliver(P0, records(10))
    assert delivered(channel) == [(0, [5, 6, 9], 0), (0, [10], 0)]


def test_records_that_were_delivered_are_not_delivered_again(consumer, channel):
    consumer._deliver(P0, records(5, 6, 7))
    consumer._deliver(P0, records(6, 7))
    consumer._deliver(P0, records(6, 7, 8, 9))
    assert [offsets for _, offsets, _ in delivered(channel)] == [[5, 6, 7], [8, 9]]


def test_a_jump_of_the_offsets_is_asked_for_again_and_believed_when_it_shows_twice(consumer, channel):
    consumer._deliver(P0, records(5))
    consumer._deliver(P0, records(8))
    assert [offsets for _, offsets, _ in delivered(channel)] == [[5]]
    assert consumer._thread.seeks == [(0, 6)]
    consumer._deliver(P0, records(8, 9))
    consumer._deliver(P0, records(10))
    assert [offsets for _, offsets, _ in delivered(channel)] == [[8, 9], [10]]
    assert consumer._thread.seeks == [(0, 6)]


def test_a_jump_that_does_not_show_again_loses_nothing(consumer, channel):
    consumer._deliver(P0, records(5))
    consumer._deliver(P0, records(8))
    consumer._deliver(P0, records(6, 7, 8))
    assert [offsets for _, offsets, _ in delivered(channel)] == [[5], [6, 7, 8]]


def test_each_transaction_marker_is_doubted_once(consumer, channel):
    for offset in range(0, 20, 2):  # a record and a marker each
        for _ in range(2):
            consumer._deliver(P0, records(offset))
    assert [offsets for _, offsets, _ in delivered(channel)] == [[offset] for offset in range(0, 20, 2)]
    assert len(consumer._thread.seeks) == 9


@pytest.mark.parametrize(
    ("count", "value"), [(HIGH_WATER_RECORDS + 1, b""), (3, b"x" * (HIGH_WATER_BYTES // 2))], ids=["records", "bytes"]
)
def test_a_partition_is_held_back_while_too_much_of_it_waits(consumer, channel, count, value):
    found = records(*range(count), value=value)
    consumer._deliver(P0, found)
    assert (consumer._active_partitions, consumer._buffered_partitions) == ({P1}, {P0})
    consumer.taken(P0, found[:1])
    assert consumer._buffered_partitions == {P0}
    consumer.taken(P0, found[1:])
    assert (consumer._active_partitions, consumer._buffered_partitions) == ({P0, P1}, set())
    assert consumer._waiting[P0] == Backlog(0, 0)


def test_only_acknowledgements_of_this_generation_count(consumer):
    consumer.frontiers[P0].admit([5, 6])
    consumer.acknowledge(P0, [5], generation=0)
    consumer.app.end_generation()
    consumer.acknowledge(P0, [6], generation=0)
    assert consumer._new_offset(P0) == 6
    consumer.app.begin_generation()
    consumer.acknowledge(P0, [6], generation=0)
    assert consumer._new_offset(P0) == 6


def test_what_is_finished_reaches_the_end_of_a_log_that_ends_without_a_record(consumer):
    """After a transaction marker, or when retention has removed all records, no record will ever move the frontier."""
    consumer._thread.positions[P0] = 500
    assert consumer.finished_upto(P0) == 500
    consumer._deliver(P0, records(500, 501))
    consumer._thread.positions[P0] = 503
    assert consumer.finished_upto(P0) == 0
    consumer.taken(P0, records(500, 501))
    consumer.acknowledge(P0, [500], generation=0)
    assert consumer.finished_upto(P0) == 501
    consumer.acknowledge(P0, [501], generation=0)
    assert consumer.finished_upto(P0) == 503


def test_a_partition_that_nobody_reads_yet_is_finished_as_far_as_it_was_committed(consumer):
    consumer._committed_offset[P0] = 7
    assert consumer.finished_upto(P0) == 7
    assert consumer.finished_upto(P1) == 0


@pytest.mark.parametrize(("every_s", "complaints"), [(0.6, 2), (5.0, 0)])
def test_a_group_that_does_not_come_to_rest_is_complained_about(consumer, caplog, every_s, complaints):
    consumer.app.conf = SimpleNamespace(id="group", consumer_group_instance_id="router-0")
    consumer._assigned_s = deque(maxlen=RESTLESS_TIMES)
    for number in range(25):
        consumer._note_assignment(number * every_s)
    assert [one.getMessage().count("instance=router-0?") for one in caplog.records] == [1] * complaints


# --- the stream ---------------------------------------------------------------------------------------------------
class Stream(ChunkStream):
    """The stream's loop, without Faust's service around it."""

    def __init__(self, app, channel):
        self.app, self.channel = app, channel

    should_stop = False

    async def maybe_start(self):
        return False

    def _channel_stop_iteration(self, channel):
        pass


def chunks_of(consumer, channel, max_records, count, between=lambda place: None):
    async def read():
        found = []
        async for chunk in Stream(consumer.app, channel).chunks(max_records):
            found.append([(tp.partition, [one.offset for one in part]) for tp, part in chunk])
            if len(found) == count:
                return found
            between(len(found))
        return None

    return asyncio.run(asyncio.wait_for(read(), 10))


def test_a_chunk_is_everything_that_waits_up_to_a_number_of_records(consumer, channel):
    consumer._deliver(P0, records(0, 1, 2))
    consumer._deliver(P1, records(0, 1))
    consumer._deliver(P0, records(3))
    assert chunks_of(consumer, channel, 4, 2) == [[(0, [0, 1, 2]), (1, [0])], [(1, [1]), (0, [3])]]
    assert consumer.frontiers[P0].unfinished == 4
    assert consumer._waiting[P0] == Backlog(0, 0)


def test_records_of_a_generation_that_has_ended_are_not_yielded(consumer, channel):
    consumer._deliver(P0, records(0, 1, 2))
    consumer._deliver(P1, records(0))

    def rebalance(_):
        consumer.app.end_generation()
        consumer.frontiers.clear()
        consumer._waiting.clear()
        consumer.app.begin_generation()
        consumer._next = {}
        consumer._deliver(P0, records(0, 1))

    assert chunks_of(consumer, channel, 2, 2, rebalance) == [[(0, [0, 1])], [(0, [0, 1])]]
    assert consumer.frontiers[P1].unfinished == 0
