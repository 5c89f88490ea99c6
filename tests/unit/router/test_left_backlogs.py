"""A backlog is left where most of what is read is too late and stays so, and is read when there is time."""

import asyncio
import time
from collections import defaultdict

import pytest
from builders.kafka import record
from faust.types import TP
from unit.router.rig import settle

from clipper_agents.router import left_backlogs
from clipper_agents.router.left_backlogs import READ_TOGETHER, LatePart, LeftBacklogs
from clipper_agents.streaming.offset_tracker import OffsetTracker

P0, P1 = TP("queries", 0), TP("queries", 1)
COUNT = 5 * READ_TOGETHER
LEFT = [offset for offset in range(10, COUNT) if offset % 100 not in (50, 51)]
"""What is left of a partition, of which two offsets in a hundred hold no record."""


def queries(tp, offsets, age_s=100.0):
    stamp_ms = int((time.time() - age_s) * 1000)
    return [record(offset, b"", None, *tp, timestamp=stamp_ms) for offset in offsets]


class Surroundings:
    """The consumer of a topic, the reader of what was left, and the agent that takes it."""

    def __init__(self):
        self.trackers, self.generation, self.consumer, self.now_s = defaultdict(OffsetTracker), 0, self, 0.0
        self.taken, self.held, self.asked, self.room = [], set(), [], asyncio.Event()
        self.unread, self.positions, self.most = {}, {}, []
        self.room.set()
        self.backlogs = LeftBacklogs(self, self, self, lambda: self.now_s)

    async def start(self):
        """It is connected."""

    def assign(self, ranges):
        self.unread = {tp: one.end for tp, one in ranges.items()}
        self.positions = {tp: one.first for tp, one in ranges.items()}

    async def fetch(self, wanted, most, wait_s):
        self.most.append(most)
        await asyncio.sleep(0.01)
        found = {}
        for tp in wanted:
            first, end = self.positions[tp], min(self.positions[tp] + most, self.unread[tp])
            found[tp] = queries(tp, (offset for offset in range(first, end) if offset in LEFT))
            self.positions[tp] = end
            if end == self.unread[tp]:
                del self.unread[tp]
        return found

    def look(self, tp, offsets, late, age_s=100.0):
        self.now_s += 0.1
        self.trackers[tp].admit([*offsets])
        self.backlogs.look({tp: queries(tp, offsets, age_s)}, late)

    def leave(self, *tps):
        for tp in tps:
            self.look(tp, range(5), {tp.partition})
            self.look(tp, range(5, 10), {tp.partition})

    def skip_backlog(self, tp, least):
        self.asked.append((tp, least))
        self.trackers[tp].skip_to(COUNT)
        return True

    async def wait_for_room(self):
        await self.room.wait()

    def is_held(self, tp, most):
        return tp in self.held

    def receive(self, chunk, generation):
        self.taken += [(tp.partition, one.offset) for tp, records in chunk.items() for one in records]


@pytest.fixture
async def around():
    made = Surroundings()
    running = asyncio.create_task(made.backlogs.run(made))
    yield made
    running.cancel()


def test_an_age_that_falls_fast_catches_up():
    ages = {100.1: False, 100.0: False, 95.0: False, 80.0: True}
    assert {age_s: LatePart(1.1, age_s).catches_up(LatePart(1.0, 100.0)) for age_s in ages} == ages


async def test_it_is_left_when_two_chunks_in_a_row_are_late_and_no_younger(around):
    around.look(P0, range(10), {0})
    around.look(P0, range(10, 20), {0, 1}, age_s=1.0)
    around.look(P0, range(20, 30), {1})
    around.look(P0, range(30, 40), {0})
    assert around.asked == [], "younger, in time, and the first of its kind"
    around.look(P0, range(40, 50), {0})
    assert around.asked == [(P0, left_backlogs.SMALLEST)]


async def test_all_that_was_left_is_read_in_order_while_there_is_room(around):
    around.room.clear()
    around.leave(P0, P1)
    assert around.backlogs.left == 2 * (COUNT - 10)
    await settle(10.0)
    assert around.taken == []
    around.held = {P0}
    around.room.set()
    await settle(10.0)
    assert around.taken == [(1, offset) for offset in LEFT]
    around.held.clear()
    await settle(10.0)
    assert around.taken[len(LEFT) :] == [(0, offset) for offset in LEFT]
    assert around.backlogs.left == 0
    for tp in (P0, P1):
        around.trackers[tp].finish([*range(10), *LEFT])
        assert around.trackers[tp].committable == COUNT


async def test_more_of_it_is_read_together_while_no_new_query_comes(around):
    around.leave(P0)
    await settle()
    around.now_s += left_backlogs.BUSY_S
    await settle(10.0)
    assert (around.most[0], around.most[-1]) == (READ_TOGETHER, left_backlogs.READ_ALONE)


async def test_what_was_left_in_an_earlier_generation_is_forgotten(around):
    around.held = {P0, P1}
    around.leave(P0, P1)
    around.trackers.clear()
    around.generation += 1
    around.backlogs.clear()
    around.held.clear()
    assert around.backlogs.left == 0
    await settle(10.0)
    assert around.taken == []
