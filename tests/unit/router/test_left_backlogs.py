"""A backlog is left where most of what is read is too late, and is read when there is time."""

import asyncio
import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
from builders.kafka import FakeLogReader, FakeProducer, record
from faust.types import TP

from clipper_agents.router.left_backlogs import READ_TOGETHER, LeftBacklogs
from clipper_agents.streaming.frontier import Frontier

P0, P1 = TP("queries", 0), TP("queries", 1)
COUNT = 5 * READ_TOGETHER
STAMP_MS = 1_000_000_000_000


class Fixture:
    """A log of queries, the consumer of it, and an agent that takes what was left."""

    def __init__(self):
        producer = FakeProducer()
        for tp in (P0, P1):
            for number in range(COUNT):
                producer.append(tp.topic, tp.partition, None, b"%d" % number)
        self.frontiers, self.generation, self.consumer = defaultdict(Frontier), 0, self
        self.taken, self.held, self.asked = [], set(), []
        self.room = asyncio.Event()
        self.room.set()
        self.indexes = defaultdict(lambda: SimpleNamespace(left_ms=math.inf))
        decisions = SimpleNamespace(of=self.indexes.__getitem__)
        self.backlogs = LeftBacklogs(self, FakeLogReader(producer, STAMP_MS), self, decisions)

    def read(self, tp, count):
        records = [record(offset, b"", None, *tp) for offset in range(count)]
        self.frontiers[tp].admit([one.offset for one in records])
        return {tp: records}

    def leave_backlog(self, tp, least):
        self.asked.append((tp, least))
        self.frontiers[tp].leave(COUNT)
        return True

    async def wait_for_room(self):
        await self.room.wait()

    def is_held(self, tp):
        return tp in self.held

    def receive(self, chunk, generation):
        for tp, records in chunk.items():
            self.taken += [(tp.partition, one.offset) for one in records]

    async def until(self, condition):
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0)


@pytest.fixture
async def fixture():
    made = Fixture()
    running = asyncio.create_task(made.backlogs.run(made))
    yield made
    running.cancel()


@pytest.mark.parametrize(("late", "leaves"), [(5, False), (6, True)])
async def test_it_is_left_if_more_than_half_of_what_was_read_is_late(fixture, late, leaves):
    fixture.backlogs.look(fixture.read(P0, 10), {0: late, 1: 10})
    assert fixture.asked == ([(P0, 10)] if leaves else [])


async def test_all_that_was_left_is_read_in_order_while_there_is_room(fixture):
    fixture.room.clear()
    for tp in (P0, P1):
        fixture.backlogs.look(fixture.read(tp, 10), {tp.partition: 10})
    assert fixture.backlogs.left == 2 * (COUNT - 10)
    assert fixture.indexes[0].left_ms < math.inf
    for _ in range(20):
        await asyncio.sleep(0)
    assert fixture.taken == []
    fixture.held = {P0}
    fixture.room.set()
    await fixture.until(lambda: fixture.indexes[1].left_ms == math.inf)
    assert fixture.taken == [(1, offset) for offset in range(10, COUNT)]
    assert fixture.indexes[0].left_ms < math.inf
    fixture.held.clear()
    await fixture.until(lambda: fixture.indexes[0].left_ms == math.inf)
    assert fixture.taken[COUNT - 10 :] == [(0, offset) for offset in range(10, COUNT)]
    assert fixture.backlogs.left == 0


async def test_what_was_left_in_an_earlier_generation_is_forgotten(fixture):
    fixture.held = {P0, P1}
    for tp in (P0, P1):
        fixture.backlogs.look(fixture.read(tp, 10), {tp.partition: 10})
    fixture.frontiers.clear()
    fixture.backlogs.clear({0})
    fixture.held.clear()
    assert (fixture.backlogs.left, fixture.indexes[0].left_ms) == (0, math.inf)
    assert fixture.indexes[1].left_ms < math.inf, "its database is closed, and not opened again"
    for _ in range(20):
        await asyncio.sleep(0)
    assert fixture.taken == []
