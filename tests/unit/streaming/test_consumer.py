"""What the consumer delivers and commits: whole lists, no record twice, the jumps of the log, one generation."""

import asyncio
import contextlib
from types import SimpleNamespace

import faust
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import NodeNotReadyError
from builders.kafka import record

from clipper_agents.streaming import membership
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.consumer import HIGH_WATER_BYTES, HIGH_WATER_RECORDS, GroupConsumer
from clipper_agents.streaming.offset_tracker import RecordBudget
from clipper_agents.streaming.stream import ChunkStream
from clipper_topics.connection import KafkaConnection

P0, P1 = TopicPartition("topic", 0), TopicPartition("topic", 1)


class Member:
    """In place of aiokafka's consumer: what a test says is fetched, committed, and at the end of the logs."""

    def __init__(self):
        self.fetched, self.committed, self.ends = {}, {}, {}
        self.seeks, self.wanted, self.commits = [], set(), []
        self._client, self._coordinator = SimpleNamespace(cluster=None), self
        self.last_stable_offset = self.ends.get
        subscriptions = SimpleNamespace(fetch_context=contextlib.nullcontext)
        self._fetcher = SimpleNamespace(
            _closed=False, _subscriptions=subscriptions, fetched_records=self.take, wait_for_records=_nothing
        )

    def assignment(self):
        return {P0, P1}

    def seek(self, tp, offset):
        self.seeks.append((tp.partition, offset))

    async def beginning_offsets(self, partitions):
        return dict.fromkeys(partitions, 0)

    async def fetch_committed_offsets(self, partitions):
        return {tp: (offset, "") for tp, offset in self.committed.items() if tp in partitions}

    async def commit(self, offsets):
        self.commits.append({tp: offset for tp, (offset, _) in offsets.items()})

    async def take(self, partitions):
        self.wanted, fetched, self.fetched = partitions, self.fetched, {}
        return fetched


class Consumer(GroupConsumer):
    """A consumer without Kafka."""

    def join(self):
        self.group = self._consumer = Member()

    async def recover(self):
        await self._recover(self.assignment())
        self.group.seeks.clear()

    async def fetch(self, tp=P0, *offsets, value=b"value"):
        """Fetch these records, and return of which partitions records were wanted."""
        self.group.fetched = {tp: records(*offsets, value=value)} if offsets else {}
        await self._read_once()
        return self.group.wanted

    def take(self, tp, *offsets):
        self.taken(tp, records(*offsets))

    def committed_now(self):
        return {tp: offset for one in self.group.commits for tp, offset in one.items()}


async def _nothing(*_):
    pass


@pytest.fixture
async def consumer(tmp_path):
    app = ClipperApp("app", KafkaConnection("localhost:1"), tmp_path, "router-0")
    app.topic_ids.known["topic"] = bytes(16)
    app.agents._agents_started.set()
    app.consumer = member = Consumer(app, KafkaConnection("localhost:1"), "router-0")
    member.stream = app.stream(aiter(member.channel("topic")))
    member.join()
    await member.recover()
    return member


def records(*offsets, value=b"value"):
    return [record(offset, value) for offset in offsets]


def delivered(consumer):
    queue, found = consumer.stream.channel.queue, []
    while not queue.empty():
        tp, some, generation = queue.get_nowait()
        found.append((tp.partition, [one.offset for one in some], generation))
    return found


def offsets_of(chunk):
    return [(tp.partition, [one.offset for one in part]) for tp, part in chunk]


@pytest.mark.parametrize(
    ("fetches", "lists", "seeks", "has_markers"),
    [
        ([(0, 1, 4), (5,)], [[0, 1, 4], [5]], [], False),
        ([(0, 1, 2), (1, 2), (1, 2, 3, 4)], [[0, 1, 2], [3, 4]], [], False),
        ([(0,), (3,), (1, 2, 3)], [[0], [1, 2, 3]], [(0, 1)], False),
        ([(0,), (2,), (4,)], [[0], [2], [4]], [], True),
    ],
    ids=["a list as it is", "no record twice", "what was lost here is fetched again", "an empty offset is no jump"],
)
async def test_what_was_fetched_is_delivered_in_whole_lists(consumer, caplog, fetches, lists, seeks, has_markers):
    for offsets in fetches:
        await consumer.fetch(P0, *offsets)
        if has_markers:
            consumer.empty.add(P0, offsets[-1] + 1, offsets[-1] + 2)
    assert delivered(consumer) == [(0, one, 0) for one in lists]
    assert consumer.group.seeks == seeks
    assert ["topic=topic partition=0 offsets=1..2" in line for line in caplog.messages] == [True] * len(seeks)
    assert consumer.finished_upto(P0) == 0


async def test_records_of_a_partition_that_no_agent_reads_in_this_generation_are_dropped(consumer):
    await consumer.fetch(TopicPartition("topic", 2), 0)
    consumer.app.end_generation()
    await consumer.fetch(P0, 0)
    assert delivered(consumer) == []


@pytest.mark.parametrize(
    ("count", "value"), [(HIGH_WATER_RECORDS + 1, b""), (3, b"x" * (HIGH_WATER_BYTES // 2))], ids=["records", "bytes"]
)
async def test_a_partition_is_held_back_while_too_much_of_it_waits(consumer, count, value):
    assert await consumer.fetch(P0, *range(count), value=value) == {P0, P1}
    found = records(*range(count), value=value)
    assert await consumer.fetch() == {P1}
    consumer.taken(P0, found[:1])
    assert await consumer.fetch() == {P1}
    consumer.taken(P0, found[1:])
    assert await consumer.fetch() == {P0, P1}
    consumer.acknowledge(P0, range(count), generation=0)
    consumer.group.ends[P0] = count + 7
    assert consumer.lag() == {P0: 7}


async def test_only_acknowledgements_of_this_generation_count(consumer):
    await consumer.fetch(P0, 0, 1)
    consumer.take(P0, 0, 1)
    consumer.acknowledge(P0, [0], generation=0)
    consumer.app.end_generation()
    consumer.acknowledge(P0, [1], generation=0)
    await consumer.commit()
    assert consumer.committed_now()[P0] == 1
    consumer.app.begin_generation()
    consumer.acknowledge(P0, [1], generation=0)
    assert consumer.finished_upto(P0) == 1


async def test_what_is_finished_and_committed_passes_offsets_without_a_record(consumer):
    """After a transaction marker no record will ever move the tracker, if none follows."""
    consumer.empty.add(P0, 0, 3)
    assert consumer.finished_upto(P0) == 3
    await consumer.fetch(P0, 3, 4)
    consumer.empty.add(P0, 5, 6)
    assert consumer.finished_upto(P0) == 0
    consumer.take(P0, 3, 4)
    consumer.acknowledge(P0, [3], generation=0)
    assert consumer.finished_upto(P0) == 4
    consumer.acknowledge(P0, [4], generation=0)
    await consumer.commit()
    assert consumer.finished_upto(P0) == consumer.committed_now()[P0] == 6


async def test_a_partition_that_nobody_reads_yet_is_finished_as_far_as_it_was_committed(consumer):
    seen = []

    async def positions():
        seen.extend(consumer.finished_upto(tp) for tp in (P0, P1))
        return {P1: 3}

    consumer.app.state_positions, consumer.group.committed = positions, {P0: 7}
    await consumer.on_partitions_revoked({P0, P1})
    await consumer.recover()
    assert seen == [7, 0]
    assert [consumer.finished_upto(tp) for tp in (P0, P1)] == [7, 3], "one position belongs to the state"


async def test_a_process_joins_only_while_no_other_one_has_its_name(consumer, monkeypatch, caplog):
    """Its own former process, which was killed, is no other one: the first join does not look."""
    monkeypatch.setattr(membership, "STAND_BY_S", 0.0)

    async def send(_):
        if coordinator.is_away:
            raise NodeNotReadyError
        members = [(f"{name}-00000000-1111-2222-3333-444444444444",) for name in coordinator.others]
        return SimpleNamespace(groups=[(0, "group", "Stable", "consumer", "range", members)])

    coordinator = SimpleNamespace(group_id="group", member_id="", others=(), is_away=False, _send_req=send)

    async def join(_):
        coordinator.member_id = "router-0-of-this-process"
        return True

    async def joins(**changes):
        vars(coordinator).update(changes)
        return await consumer.app.lease._join(coordinator, "router-0", _nothing, join, None)

    assert await joins(others=("router-0", "router-1"))
    assert await joins(), "a rebalance"
    assert [await joins(member_id="") for _ in range(3)] == [False] * 3, "it was thrown out"
    assert not await joins(others=("router-1",), is_away=True), "an outage, which ends no process"
    assert await joins(is_away=False)
    assert not await joins(member_id="", others=("router-0",))
    assert [one.getMessage().count("instance=router-0") for one in caplog.records] == [1, 1]


# --- the stream ---------------------------------------------------------------------------------------------------
async def test_a_chunk_is_everything_that_waits_up_to_a_number_of_records(consumer):
    for tp, offsets in ((P0, (0, 1, 2)), (P1, (0, 1)), (P0, (3,))):
        await consumer.fetch(tp, *offsets)
    chunks = consumer.stream.chunks(4)
    assert offsets_of(await anext(chunks)) == [(0, [0, 1, 2]), (1, [0])]
    assert offsets_of(await anext(chunks)) == [(1, [1]), (0, [3])]
    consumer.group.ends[P0] = 4
    assert consumer.trackers[P0].unfinished == consumer.lag()[P0] == 4


async def test_records_of_a_generation_that_has_ended_are_not_yielded(consumer):
    await consumer.fetch(P0, 0, 1, 2)
    await consumer.fetch(P1, 0)
    chunks = consumer.stream.chunks(2)
    assert offsets_of(await anext(chunks)) == [(0, [0, 1])]
    await consumer.on_partitions_revoked({P0, P1})
    await consumer.recover()
    await consumer.fetch(P0, 0, 1)
    assert offsets_of(await anext(chunks)) == [(0, [0, 1])]
    assert consumer.trackers[P1].unfinished == 0


def test_a_chunk_ends_at_its_bytes_and_holds_one_record_at_least():
    lists = [[record(number, b"x" * size) for number in range(3)] for size in (20, 40, 100, 500)]
    assert [len(RecordBudget(10, 100).take(one)) for one in lists] == [3, 2, 1, 1]
    room = RecordBudget(2, 100)
    assert ([one.offset for one in room.take(records(0, 1, 2))], room.records, room.is_room) == ([0, 1], 0, False)


async def test_a_held_partition_is_left_out_and_keeps_its_order(consumer):
    held = {P0}
    chunks = consumer.stream.chunks(100, lambda tp: tp in held)
    for tp, offsets in ((P0, (0, 1)), (P1, (0,)), (P0, (2,))):
        await consumer.fetch(tp, *offsets)
    assert offsets_of(await anext(chunks)) == [(1, [0])]
    consumer.group.ends[P0] = 3
    assert consumer.lag()[P0] == 3, "they count as queued, so that no more are fetched than memory has"
    await consumer.fetch(P0, 3)
    held.clear()
    consumer.acknowledge(P1, [0], 0)
    assert consumer.stream.channel.queue.qsize() == 1, "nobody looks again"
    consumer.acknowledge(P0, [], 0)
    assert [one for _, part in offsets_of(await anext(chunks)) for one in part] == [0, 1, 2, 3]


async def test_a_backlog_is_left_and_what_comes_behind_it_is_delivered(consumer):
    chunks, ends = consumer.stream.chunks(2), consumer.group.ends
    await consumer.fetch(P0, 0, 1, 2, 3)
    assert offsets_of(await anext(chunks)) == [(0, [0, 1])]
    assert not consumer.skip_backlog(P0, 2), "nothing is known of an end"
    ends[P0] = 4
    assert not consumer.skip_backlog(P0, 2), "it is as short as what was read"
    await consumer.fetch(P0, 4, 5)
    ends[P0] = 9
    assert consumer.skip_backlog(P0, 2)
    assert (consumer.group.seeks, consumer.trackers[P0].skipped_range) == ([(0, 9)], (2, 9))
    assert consumer.lag()[P0] == 4 + 2 + 7, "queued, taken, and left for later"
    await consumer.fetch(P0, 9, 10)
    assert offsets_of(await anext(chunks)) == [(0, [9, 10])]
    assert consumer.lag()[P0] == 4 + 7
    consumer.acknowledge(P0, [0, 1, 9, 10], 0)
    assert consumer.finished_upto(P0) == 2
    consumer.trackers[P0].admit_skipped([2, 3], 9)
    consumer.acknowledge(P0, [2, 3], 0)
    assert consumer.finished_upto(P0) == 11


async def test_partitions_are_served_beside_each_other_and_each_in_order(consumer):
    served, back = asyncio.Queue(), asyncio.Event()

    async def serve(tp, found, generation):
        served.put_nowait((tp.partition, [one.offset for one in found], generation))
        if tp == P0:
            await back.wait()

    serving = asyncio.create_task(consumer.stream.serve_partitions(2, serve))
    await consumer.fetch(P0, 0, 1, 2)
    await consumer.fetch(P1, 0)
    assert [await served.get() for _ in range(2)] == [(0, [0, 1], 0), (1, [0], 0)]
    await consumer.fetch(P1, 1)
    assert await served.get() == (1, [1], 0)
    back.set()
    assert await served.get() == (0, [2], 0)
    serving.cancel()


async def test_a_partition_that_fails_ends_the_agent_with_its_error(consumer):
    async def serve(tp, found, generation):
        raise ValueError("a bug")

    await consumer.fetch(P0, 0)
    await consumer.stream.start()
    with pytest.raises(ValueError, match="a bug"):
        await consumer.stream.serve_partitions(2, serve)
    assert not consumer.stream.should_stop, "who has started the stream stops it"


def test_the_stream_hides_nothing_that_fausts_own_has_under_the_same_name():
    """`_next` is a link to another stream there: with a method in its place, each stop was a crash."""
    own = {name for name in vars(ChunkStream) if not name.startswith("__")}
    assert own & {*dir(faust.Stream)} <= {"logger", "ack", "_abc_impl"}
