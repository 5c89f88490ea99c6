"""What the consumer delivers and commits: whole lists, no record twice, the jumps of the log, one generation."""

import asyncio
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from aiokafka.errors import NodeNotReadyError
from builders.kafka import record
from faust.types import TP

from clipper_agents.kafka.aiokafka_patches import EmptyOffsets
from clipper_agents.streaming import consumer_thread
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.consumer import (
    HIGH_WATER_BYTES,
    HIGH_WATER_RECORDS,
    Backlog,
    BulkConsumer,
    Frontier,
)
from clipper_agents.streaming.consumer_thread import InlineConsumerThread
from clipper_agents.streaming.stream import ChunkStream

P0, P1 = TP("topic", 0), TP("topic", 1)


class FakeThread:
    def __init__(self):
        self.seeks, self.ends = [], {}

    def _ensure_consumer(self):
        return SimpleNamespace(last_stable_offset=self.ends.get)

    def seek(self, tp, offset):
        self.seeks.append((tp.partition, offset))


class Channel:
    """A topic's queue, as Faust's channels are."""

    def __init__(self):
        self.queue = asyncio.Queue()

    async def __anext__(self):
        return await self.queue.get()


class App(SimpleNamespace):
    generation, rebalances, _generations, in_recovery = -1, 0, 0, False
    begin_generation, end_generation = ClipperApp.begin_generation, ClipperApp.end_generation
    membership = SimpleNamespace(ended=lambda: None)


@pytest.fixture
def channel():
    return Channel()


@pytest.fixture
def consumer(channel):
    """A consumer without Kafka, and without Faust's start."""
    found: Any = object.__new__(BulkConsumer)
    found.app = App(topics=SimpleNamespace(_tp_index=defaultdict(lambda: [channel])), consumer=found)
    found.frontiers, found._waiting = defaultdict(Frontier), defaultdict(Backlog)
    found._next, found.empty, found._read_offset = {P0: 0, P1: 0}, EmptyOffsets(), {}
    found._committed_offset = defaultdict(lambda: None)
    found._active_partitions, found._buffered_partitions = {P0, P1}, set()
    found._thread, found.held_back = FakeThread(), set()
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
    consumer._deliver(P0, records(0, 1, 4))
    consumer._deliver(P0, records(5))
    assert delivered(channel) == [(0, [0, 1, 4], 0), (0, [5], 0)]


def test_records_that_were_delivered_are_not_delivered_again(consumer, channel):
    consumer._deliver(P0, records(0, 1, 2))
    consumer._deliver(P0, records(1, 2))
    consumer._deliver(P0, records(1, 2, 3, 4))
    assert [offsets for _, offsets, _ in delivered(channel)] == [[0, 1, 2], [3, 4]]


def test_a_jump_that_no_fetch_explains_was_lost_here_and_is_fetched_again(consumer, channel, caplog):
    consumer._deliver(P0, records(0))
    consumer._deliver(P0, records(3))
    assert consumer._thread.seeks == [(0, 1)]
    assert "fetched records were lost topic=topic partition=0 offsets=1..2" in caplog.text
    consumer._deliver(P0, records(1, 2, 3))
    assert [offsets for _, offsets, _ in delivered(channel)] == [[0], [1, 2, 3]]
    assert consumer.finished_upto(P0) == 0


def test_offsets_that_a_fetch_has_found_empty_are_no_jump(consumer, channel, caplog):
    for offset in range(0, 20, 2):  # a record and a marker each
        consumer._deliver(P0, records(offset))
        consumer.empty.add(P0, offset + 1, offset + 2)
    assert [offsets for _, offsets, _ in delivered(channel)] == [[offset] for offset in range(0, 20, 2)]
    assert (consumer._thread.seeks, caplog.messages) == ([], [])


def test_records_of_a_partition_that_is_not_of_this_generation_are_dropped(consumer, channel):
    consumer._deliver(TP("topic", 2), records(0))
    assert delivered(channel) == []


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


def test_what_is_finished_and_committed_passes_offsets_without_a_record(consumer):
    """After a transaction marker no record will ever move the frontier, if none follows."""
    consumer.empty.add(P0, 0, 3)
    assert consumer.finished_upto(P0) == 3
    consumer._deliver(P0, records(3, 4))
    consumer.empty.add(P0, 5, 6)
    assert consumer.finished_upto(P0) == 0
    consumer.taken(P0, records(3, 4))
    consumer.acknowledge(P0, [3], generation=0)
    assert consumer.finished_upto(P0) == 4
    consumer.acknowledge(P0, [4], generation=0)
    assert (consumer.finished_upto(P0), consumer._new_offset(P0)) == (6, 6)


def test_a_partition_that_nobody_reads_yet_is_finished_as_far_as_it_was_committed(consumer):
    consumer._next.clear()
    consumer._committed_offset[P0] = 7
    assert consumer.finished_upto(P0) == 7
    assert consumer.finished_upto(P1) == 0


class Coordinator(SimpleNamespace):
    """Of a group in which another process may have the instance name."""

    group_id, member_id, others, is_away = "group", "", (), False

    async def _send_req(self, request):
        if self.is_away:
            raise NodeNotReadyError
        members = [(f"{name}-00000000-1111-2222-3333-444444444444",) for name in self.others]
        return SimpleNamespace(groups=[(0, "group", "Stable", "consumer", "range", members)])


@pytest.mark.anyio
async def test_a_process_joins_only_while_no_other_one_has_its_name(monkeypatch, caplog):
    """Its own former process, which was killed, is no other one: the first join does not look."""
    monkeypatch.setattr(consumer_thread, "STAND_BY_S", 0.0)
    thread: Any = object.__new__(InlineConsumerThread)
    conf = SimpleNamespace(consumer_group_instance_id="router-0")
    thread.consumer = SimpleNamespace(app=SimpleNamespace(conf=conf))
    thread._was_member = thread._stands_by = False
    coordinator = Coordinator(others=("router-0", "router-1"))

    async def join(subscription):
        coordinator.member_id = "router-0-of-this-process"
        return True

    assert await thread._join(coordinator, join, None)
    assert await thread._join(coordinator, join, None)  # a rebalance
    coordinator.member_id = ""  # thrown out
    assert [await thread._join(coordinator, join, None) for _ in range(3)] == [False] * 3
    coordinator.others, coordinator.is_away = ("router-1",), True
    assert not await thread._join(coordinator, join, None)  # and raises nothing: an outage ends no process
    coordinator.is_away = False
    assert await thread._join(coordinator, join, None)
    coordinator.member_id, coordinator.others = "", ("router-0",)
    assert not await thread._join(coordinator, join, None)
    assert [one.getMessage().count("instance=router-0") for one in caplog.records] == [1, 1]


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
        consumer._next = {P0: 0, P1: 0}
        consumer._deliver(P0, records(0, 1))

    assert chunks_of(consumer, channel, 2, 2, rebalance) == [[(0, [0, 1])], [(0, [0, 1])]]
    assert consumer.frontiers[P1].unfinished == 0


def test_a_chunk_ends_at_its_bytes_and_holds_one_record_at_least():
    lists = [[record(number, b"x" * size) for number in range(3)] for size in (20, 40, 100, 500)]
    assert [len(Backlog(10, 100).take(one)) for one in lists] == [3, 2, 1, 1]
    room = Backlog(2, 100)
    assert ([one.offset for one in room.take(records(0, 1, 2))], room.records, room.is_room) == ([0, 1], 0, False)


async def test_a_held_partition_is_left_out_and_keeps_its_order(consumer, channel):
    held, chunks = {P0}, Stream(consumer.app, channel).chunks(100, lambda tp: tp in held)
    for tp, offsets in ((P0, (0, 1)), (P1, (0,)), (P0, (2,))):
        consumer._deliver(tp, records(*offsets))
    assert [(tp, len(part)) for tp, part in await anext(chunks)] == [(P1, 1)]
    assert consumer._waiting[P0].records == 3, "they count as queued, so that no more are fetched than memory has"
    consumer._deliver(P0, records(3))
    held.clear()
    consumer.acknowledge(P1, [0], 0)
    assert channel.queue.qsize() == 1, "nobody looks again"
    consumer.acknowledge(P0, [], 0)
    found = await asyncio.wait_for(anext(chunks), 10)
    assert [one.offset for _, part in found for one in part] == [0, 1, 2, 3]
    await chunks.aclose()


async def test_a_backlog_is_left_and_what_comes_behind_it_is_delivered(consumer, channel):
    chunks = Stream(consumer.app, channel).chunks(2)
    consumer._deliver(P0, records(0, 1, 2, 3))
    assert [(tp, len(part)) for tp, part in await anext(chunks)] == [(P0, 2)]
    assert not consumer.leave_backlog(P0, 2), "nothing is known of an end"
    consumer._thread.ends[P0] = 4
    assert not consumer.leave_backlog(P0, 2), "it is as short as what was read"
    consumer._deliver(P0, records(4, 5))
    consumer._thread.ends[P0] = 9
    assert consumer.leave_backlog(P0, 2)
    assert (consumer._thread.seeks, consumer.frontiers[P0].left, consumer._waiting[P0].records) == ([(0, 9)], (2, 9), 4)
    consumer._deliver(P0, records(9, 10))
    assert [[one.offset for one in part] for _, part in await asyncio.wait_for(anext(chunks), 10)] == [[9, 10]]
    assert consumer._waiting[P0].records == 0
    consumer.acknowledge(P0, [0, 1, 9, 10], 0)
    assert consumer.finished_upto(P0) == 2
    consumer.frontiers[P0].admit_left([2, 3], 9)
    consumer.acknowledge(P0, [2, 3], 0)
    assert consumer.finished_upto(P0) == 11
    await chunks.aclose()


async def test_partitions_are_served_beside_each_other_and_each_in_order(consumer, channel):
    served, back = [], asyncio.Event()

    async def serve(tp, found, generation):
        served.append((tp.partition, [one.offset for one in found]))
        if tp == P0:
            await back.wait()

    serving = asyncio.create_task(Stream(consumer.app, channel).serve_partitions(2, serve))
    consumer._deliver(P0, records(0, 1, 2))
    consumer._deliver(P1, records(0))
    while len(served) < 2:
        await asyncio.sleep(0)
    assert served == [(0, [0, 1]), (1, [0])]
    consumer._deliver(P1, records(1))
    while len(served) < 3:
        await asyncio.sleep(0)
    back.set()
    while len(served) < 4:
        await asyncio.sleep(0)
    assert served[2:] == [(1, [1]), (0, [2])]
    serving.cancel()


async def test_a_partition_that_fails_ends_the_agent_with_its_error(consumer, channel):
    async def serve(tp, found, generation):
        raise ValueError("a bug")

    consumer._deliver(P0, records(0))
    with pytest.raises(ValueError, match="a bug"):
        await asyncio.wait_for(Stream(consumer.app, channel).serve_partitions(2, serve), 10)


def test_the_stream_hides_nothing_that_fausts_own_has_under_the_same_name():
    """`_next` is a link to another stream there: with a method in its place, each stop was a crash."""
    own = {name for name in vars(ChunkStream) if not name.startswith("__")}
    assert own & {*dir(faust.Stream)} <= {"logger", "ack", "_abc_impl"}
