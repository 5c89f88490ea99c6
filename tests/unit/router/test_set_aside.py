"""Queries without room, and backlogs that are read too late, are set aside and read when there is room or time."""

import asyncio
import time
from collections import defaultdict
from math import inf

import pytest
from builders.kafka import FakeLogReader, FakeProducer, record
from builders.query_router import batches_of
from faust.types import TP
from unit.router.rig import CATALOGUE, query, settle

from clipper_agents.router.set_aside import (
    BUSY_S,
    READ_ALONE,
    READ_TOGETHER,
    SMALLEST,
    DeferredQueries,
    LagSample,
    SkippedBacklogs,
)
from clipper_agents.streaming.offset_tracker import OffsetTracker
from clipper_stream.query.in_flight import Admission

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
        self.trackers, self.generation, self.consumer = defaultdict(OffsetTracker), 0, self
        self.taken, self.held, self.asked, self.room = [], set(), [], asyncio.Event()
        self.unread, self.positions, self.most = {}, {}, []
        self.room.set()
        self.backlogs = SkippedBacklogs(self, self, self.room)

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

    async def look(self, tp, offsets, late, age_s=100.0):
        await settle(0.1)
        self.look_now(tp, offsets, late, age_s)

    def look_now(self, tp, offsets, late, age_s=100.0):
        self.trackers[tp].admit([*offsets])
        self.backlogs.skip_if_behind({tp: queries(tp, offsets, age_s)}, late)

    async def leave(self, *tps):
        for offsets in (range(5), range(5, 10)):
            await settle(0.1)
            for tp in tps:
                self.look_now(tp, offsets, {tp.partition})

    def skip_backlog(self, tp, least):
        self.asked.append((tp, least))
        self.trackers[tp].skip_to(COUNT)
        return True

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
    assert {age_s: LagSample(1.1, age_s).catches_up(LagSample(1.0, 100.0)) for age_s in ages} == ages


async def test_it_is_left_when_two_chunks_in_a_row_are_late_and_no_younger(around):
    await around.look(P0, range(10), {0})
    await around.look(P0, range(10, 20), {0, 1}, age_s=1.0)
    await around.look(P0, range(20, 30), {1})
    await around.look(P0, range(30, 40), {0})
    assert around.asked == [], "younger, in time, and the first of its kind"
    await around.look(P0, range(40, 50), {0})
    assert around.asked == [(P0, SMALLEST)]


async def test_all_that_was_left_is_read_in_order_while_there_is_room(around):
    around.room.clear()
    await around.leave(P0, P1)
    assert around.backlogs.skipped == 2 * (COUNT - 10)
    await settle(10.0)
    assert around.taken == []
    around.held = {P0}
    around.room.set()
    await settle(10.0)
    assert around.taken == [(1, offset) for offset in LEFT]
    around.held.clear()
    await settle(10.0)
    assert around.taken[len(LEFT) :] == [(0, offset) for offset in LEFT]
    assert around.backlogs.skipped == 0
    for tp in (P0, P1):
        around.trackers[tp].finish([*range(10), *LEFT])
        assert around.trackers[tp].committable == COUNT


async def test_more_of_it_is_read_together_while_no_new_query_comes(around):
    await around.leave(P0)
    await settle(0.005)
    around.held = {P0}
    await settle(BUSY_S)
    around.held.clear()
    await settle(10.0)
    assert (around.most[0], around.most[-1]) == (READ_TOGETHER, READ_ALONE)


async def test_what_was_left_in_an_earlier_generation_is_forgotten(around):
    around.held = {P0, P1}
    await around.leave(P0, P1)
    around.trackers.clear()
    around.generation += 1
    around.backlogs.clear()
    around.held.clear()
    assert around.backlogs.skipped == 0
    await settle(10.0)
    assert around.taken == []


# --- deferred queries -------------------------------------------------------------------------------------------------
class DeferredRig:
    """A log of ten queries a partition, their consumer, and an agent that takes what is read again."""

    def __init__(self):
        producer = FakeProducer()
        for number in range(20):
            producer.append(CATALOGUE.queries, number % 2, None, b"query")
        self.admission, self.generation, self.taken, self.gone = Admission(8), 0, [], []
        self.consumer = self
        self.admission.shared = True
        self.admission.enter("app", 6)  # all of what is for everybody
        self.deferred = DeferredQueries(self, FakeLogReader(producer), CATALOGUE.queries, self.admission)

    def receive(self, chunk, generation):
        for tp, records in chunk.items():
            self.admission.enter("app", len(records))
            self.taken += [(tp.partition, record.offset) for record in records]

    def acknowledge(self, tp, offsets, generation):
        self.gone.append((tp.partition, offsets))

    async def put(self, *offsets, partition=0, until_s=inf):
        (batch,) = batches_of([query("q", 1, partition=partition)])
        for offset in offsets:
            batch.offsets = [offset]
            self.deferred.put([(batch, 0, until_s)])
        await settle(1.0)


@pytest.fixture
async def deferring():
    made = DeferredRig()
    running = asyncio.create_task(made.deferred.run(made))
    yield made
    running.cancel()


async def test_they_wait_until_there_is_room_and_no_more_are_read_than_that(deferring):
    await deferring.put(1, 2, 5)
    await deferring.put(3, partition=1)
    assert (deferring.taken, deferring.admission.deferred) == ([], 4)
    assert [deferring.deferred.has_id(*one) for one in ((0, "q"), (1, "q"), (0, "r"), (2, "q"))] == [
        True,
        True,
        False,
        False,
    ]
    for first, taken, deferred in ((0, [(0, 1), (0, 2)], 2), (2, [(0, 5), (1, 3)], 0)):
        deferring.admission.leave("app", 2)
        await settle(1.0)
        assert (deferring.taken[first:], deferring.admission.deferred) == (taken, deferred)


async def test_those_of_an_ended_generation_are_left_to_the_next_and_what_the_log_has_no_more_is_done(
    deferring,
):
    await deferring.put(1)
    deferring.deferred.clear()
    deferring.admission.clear()
    await deferring.put(9, 10)
    assert (deferring.taken, deferring.gone, deferring.admission.deferred) == ([(0, 9)], [(0, [10])], 0)


async def test_what_is_due_is_read_again_without_room_and_nothing_else(deferring):
    await deferring.put(1, 3)
    await deferring.put(2, until_s=1.0)
    assert (deferring.taken, deferring.admission.deferred) == ([(0, 2)], 2)


async def test_nothing_is_read_again_while_partitions_are_being_given(deferring):
    deferring.generation = -1
    deferring.admission.clear()
    await deferring.put(1)
    assert deferring.taken == []
    deferring.generation = 1
    await settle(1.0)
    assert deferring.taken == [(0, 1)]
