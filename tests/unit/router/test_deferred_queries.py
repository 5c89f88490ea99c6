"""Deferred queries are read from the log again as soon as their application has room, and only those."""

import asyncio
from math import inf

import pytest
from builders.kafka import FakeLogReader, FakeProducer
from builders.query_router import query

from clipper_agents.router.deferred_queries import DeferredQueries
from clipper_stream.query.admission import Admission

TOPIC = "queries"


class Fixture:
    """A log of queries, and an agent that takes what is read again."""

    def __init__(self):
        producer = FakeProducer()
        for partition in (0, 1):
            for number in range(10):
                producer.append(TOPIC, partition, None, b"%d" % number)
        self.admission, self.generation, self.taken, self.gone = Admission(8), 0, [], []
        self.admission.shared = True
        self.admission.enter("app", 6)  # all of what is for everybody
        self.deferred = DeferredQueries(FakeLogReader(producer), TOPIC, self, self.admission)

    def receive(self, chunk, generation):
        for tp, records in chunk.items():
            self.taken += [(tp.partition, record.offset) for record in records]

    def acknowledge(self, partition, offsets, generation):
        self.gone.append((partition, offsets))

    def put(self, *offsets, partition=0, until_s=inf):
        queries = (query(f"q{one}", 1, application="app", offset=one, partition=partition) for one in offsets)
        self.deferred.put([(one, until_s) for one in queries])

    async def until(self, condition):
        while not condition():
            await asyncio.sleep(0)


@pytest.fixture
async def fixture():
    made = Fixture()
    running = asyncio.create_task(made.deferred.run(made))
    yield made
    running.cancel()


async def test_they_wait_until_there_is_room_and_no_more_are_read_than_that(fixture):
    fixture.put(1, 2, 5)
    fixture.put(3, partition=1)
    await asyncio.sleep(0)
    assert (fixture.taken, fixture.admission.deferred) == ([], 4)
    fixture.admission.leave("app")
    fixture.admission.leave("app")
    assert fixture.admission.room("app") == 2
    await fixture.until(lambda: len(fixture.taken) == 4)
    assert sorted(fixture.taken) == [(0, 1), (0, 2), (0, 5), (1, 3)]
    assert fixture.admission.deferred == 0


async def test_what_the_log_has_no_more_is_acknowledged(fixture):
    fixture.admission.clear()
    fixture.put(9, 10)
    await fixture.until(lambda: fixture.gone)
    assert (fixture.taken, fixture.gone) == ([(0, 9)], [(0, [10])])


async def test_those_of_a_generation_that_has_ended_are_left_to_the_next(fixture):
    fixture.put(1)
    fixture.deferred.clear()
    fixture.admission.clear()
    fixture.put(2)
    await fixture.until(lambda: fixture.taken)
    assert (fixture.taken, fixture.admission.deferred) == ([(0, 2)], 0)


async def test_what_is_due_is_read_again_without_room_and_nothing_else(fixture):
    fixture.put(1, 3)
    fixture.put(2, until_s=1.0)
    await fixture.until(lambda: fixture.taken)
    assert (fixture.taken, fixture.admission.deferred) == ([(0, 2)], 2)


async def test_nothing_is_read_again_while_partitions_are_being_given(fixture):
    fixture.generation = -1
    fixture.admission.clear()
    fixture.put(1)
    for _ in range(20):
        await asyncio.sleep(0)
    assert fixture.taken == []
    fixture.generation = 1
    await fixture.until(lambda: fixture.taken)


def test_reading_stops_when_a_million_are_deferred():
    admission = Admission(8)
    admission.shared = True
    admission.deferred = 1_000_000
    assert admission.is_full
