"""A backlog is left where most of what is read is too late and stays so, and is read when there is time."""

import asyncio
import math
import time
from collections import defaultdict
from types import SimpleNamespace

import pytest
from builders.kafka import record
from faust.types import TP

from clipper_agents.router import left_backlogs
from clipper_agents.router.left_backlogs import BUSY_S, READ_ALONE, READ_TOGETHER, LatePart, LeftBacklogs
from clipper_agents.streaming.frontier import Frontier

P0, P1 = TP("queries", 0), TP("queries", 1)
COUNT = 5 * READ_TOGETHER


def queries(tp, offsets, age_s=100.0):
    stamp_ms = int((time.time() - age_s) * 1000)
    return [record(offset, b"", None, *tp, timestamp=stamp_ms) for offset in offsets]


class RangeReader:
    """Reads what it is told to; of each partition two offsets in a row hold no record."""

    def __init__(self):
        self.unread, self.positions, self.most = {}, {}, []

    async def start(self):
        pass

    def assign(self, ranges):
        self.unread = {tp: one.end for tp, one in ranges.items()}
        self.positions = {tp: one.first for tp, one in ranges.items()}

    async def fetch(self, wanted, most, wait_s):
        await asyncio.sleep(0)
        self.most.append(most)
        found = {}
        for tp in wanted:
            first, end = self.positions[tp], min(self.positions[tp] + most, self.unread[tp])
            found[tp] = queries(tp, (offset for offset in range(first, end) if offset % 100 not in (50, 51)))
            self.positions[tp] = end
            if end == self.unread[tp]:
                del self.unread[tp]
        return found


class Fixture:
    """The consumer of a topic, and an agent that takes what was left."""

    def __init__(self):
        self.frontiers, self.generation, self.consumer = defaultdict(Frontier), 0, self
        self.taken, self.held, self.asked = [], set(), []
        self.room = asyncio.Event()
        self.room.set()
        self.indexes = defaultdict(lambda: SimpleNamespace(left_ms=math.inf))
        decisions = SimpleNamespace(of=self.indexes.__getitem__)
        self.reader, self.now_s = RangeReader(), 0.0
        self.backlogs = LeftBacklogs(self, self.reader, self, decisions, lambda: self.now_s)

    def read(self, tp, offsets, age_s=100.0):
        self.now_s += 0.1
        self.frontiers[tp].admit([*offsets])
        return {tp: queries(tp, offsets, age_s)}

    def leave(self, tp):
        self.backlogs.look(self.read(tp, range(5)), {tp.partition})
        self.backlogs.look(self.read(tp, range(5, 10)), {tp.partition})

    def leave_backlog(self, tp, least):
        self.asked.append((tp, least))
        self.frontiers[tp].leave(COUNT)
        return True

    async def wait_for_room(self):
        await self.room.wait()

    def is_held(self, tp, most):
        return tp in self.held

    def receive(self, chunk, generation):
        for tp, records in chunk.items():
            self.taken += [(tp.partition, one.offset) for one in records]

    async def until(self, condition):
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0)


@pytest.fixture
async def fixture(monkeypatch):
    monkeypatch.setattr(left_backlogs, "LOOK_AGAIN_S", 0.0)
    made = Fixture()
    running = asyncio.create_task(made.backlogs.run(made))
    yield made
    running.cancel()


@pytest.mark.parametrize(
    ("took_s", "age_s", "catches_up"), [(0.1, 100.1, False), (0.1, 100.0, False), (0.1, 95.0, False), (0.1, 80.0, True)]
)
def test_an_age_that_falls_fast_catches_up(took_s, age_s, catches_up):
    assert LatePart(1.0 + took_s, age_s).catches_up(LatePart(1.0, 100.0)) == catches_up


async def test_it_is_left_when_two_chunks_in_a_row_are_late_and_no_younger(fixture):
    look = fixture.backlogs.look
    look(fixture.read(P0, range(10)), {0})
    look(fixture.read(P0, range(10, 20), 1.0), {0, 1})
    look(fixture.read(P0, range(20, 30)), {1})
    look(fixture.read(P0, range(30, 40)), {0})
    assert fixture.asked == [], "younger, in time, and the first of its kind"
    look(fixture.read(P0, range(40, 50)), {0})
    assert fixture.asked == [(P0, left_backlogs.SMALLEST)]


async def test_all_that_was_left_is_read_in_order_while_there_is_room(fixture):
    fixture.room.clear()
    fixture.leave(P0)
    fixture.leave(P1)
    assert fixture.backlogs.left == 2 * (COUNT - 10)
    assert fixture.indexes[0].left_ms < math.inf
    for _ in range(20):
        await asyncio.sleep(0)
    assert fixture.taken == []
    fixture.held = {P0}
    fixture.room.set()
    expected = [offset for offset in range(10, COUNT) if offset % 100 not in (50, 51)]
    await fixture.until(lambda: len(fixture.taken) == len(expected))
    assert fixture.taken == [(1, offset) for offset in expected]
    assert fixture.indexes[0].left_ms < math.inf
    fixture.held.clear()
    await fixture.until(lambda: fixture.indexes[0].left_ms == math.inf)
    assert fixture.taken[len(expected) :] == [(0, offset) for offset in expected]
    assert (fixture.backlogs.left, fixture.indexes[1].left_ms) == (0, math.inf)
    for tp in (P0, P1):
        fixture.frontiers[tp].finish([*range(10), *expected])
        assert fixture.frontiers[tp].committable == COUNT


async def test_more_of_it_is_read_together_while_no_new_query_comes(fixture):
    fixture.leave(P0)
    await fixture.until(lambda: fixture.reader.most)
    fixture.now_s += BUSY_S
    await fixture.until(lambda: fixture.indexes[0].left_ms == math.inf)
    assert (fixture.reader.most[0], fixture.reader.most[-1]) == (READ_TOGETHER, READ_ALONE)


async def test_what_was_left_in_an_earlier_generation_is_forgotten(fixture):
    fixture.held = {P0, P1}
    fixture.leave(P0)
    fixture.leave(P1)
    fixture.frontiers.clear()
    fixture.generation += 1
    fixture.backlogs.clear({0})
    fixture.held.clear()
    assert (fixture.backlogs.left, fixture.indexes[0].left_ms) == (0, math.inf)
    assert fixture.indexes[1].left_ms < math.inf, "its database is closed, and not opened again"
    for _ in range(20):
        await asyncio.sleep(0)
    assert fixture.taken == []
