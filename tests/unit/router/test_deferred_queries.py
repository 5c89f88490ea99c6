"""Deferred queries are read from the log again as soon as their application has room, and only those."""

import asyncio
from math import inf

import pytest
from builders.kafka import FakeLogReader, FakeProducer
from unit.router.rig import query, settle

from clipper_agents.router.deferred_queries import DeferredQueries
from clipper_stream.query.admission import Admission

TOPIC = "queries"


class Surroundings:
    """A log of ten queries a partition, their consumer, and an agent that takes what is read again."""

    def __init__(self):
        producer = FakeProducer()
        for number in range(20):
            producer.append(TOPIC, number % 2, None, b"query")
        self.admission, self.generation, self.taken, self.gone = Admission(8), 0, [], []
        self.admission.shared = True
        self.admission.enter("app", 6)  # all of what is for everybody
        self.deferred = DeferredQueries(FakeLogReader(producer), TOPIC, self, self.admission)

    def receive(self, chunk, generation):
        for tp, records in chunk.items():
            self.admission.enter("app", len(records))
            self.taken += [(tp.partition, record.offset) for record in records]

    def acknowledge(self, partition, offsets, generation):
        self.gone.append((partition, offsets))

    async def put(self, *offsets, partition=0, until_s=inf):
        self.deferred.put([(query("q", 1, offset=one, partition=partition), until_s) for one in offsets])
        await settle(1.0)


@pytest.fixture
async def around():
    made = Surroundings()
    running = asyncio.create_task(made.deferred.run(made))
    yield made
    running.cancel()


async def test_they_wait_until_there_is_room_and_no_more_are_read_than_that(around):
    await around.put(1, 2, 5)
    await around.put(3, partition=1)
    assert (around.taken, around.admission.deferred) == ([], 4)
    for first, taken, deferred in ((0, [(0, 1), (0, 2)], 2), (2, [(0, 5), (1, 3)], 0)):
        around.admission.leave("app", 2)
        await settle(1.0)
        assert (around.taken[first:], around.admission.deferred) == (taken, deferred)


async def test_what_the_log_has_no_more_is_acknowledged(around):
    around.admission.clear()
    await around.put(9, 10)
    assert (around.taken, around.gone) == ([(0, 9)], [(0, [10])])


async def test_those_of_a_generation_that_has_ended_are_left_to_the_next(around):
    await around.put(1)
    around.deferred.clear()
    around.admission.clear()
    await around.put(2)
    assert (around.taken, around.admission.deferred) == ([(0, 2)], 0)


async def test_what_is_due_is_read_again_without_room_and_nothing_else(around):
    await around.put(1, 3)
    await around.put(2, until_s=1.0)
    assert (around.taken, around.admission.deferred) == ([(0, 2)], 2)


async def test_nothing_is_read_again_while_partitions_are_being_given(around):
    around.generation = -1
    around.admission.clear()
    await around.put(1)
    assert around.taken == []
    around.generation = 1
    await settle(1.0)
    assert around.taken == [(0, 1)]


def test_reading_stops_when_a_million_are_deferred():
    admission = Admission(8)
    admission.shared = True
    admission.deferred = 1_000_000
    assert admission.is_full
