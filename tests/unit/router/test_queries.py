"""New queries go to the router, known ones are answered again, and what is no query becomes a dead letter.

The queries are years old, so that the router decides at once: each is past its deadline.
"""

import asyncio
import json
from collections import Counter
from itertools import permutations
from types import SimpleNamespace

import msgspec
import pytest
from builders.feedback import logged
from builders.kafka import FakeProducer, Tasks, record
from builders.query_router import application, make_router
from faust.types import TP

from clipper_agents.router.decision_index import LogIndex
from clipper_agents.router.queries import BLOCK_FROM, MOST_UNWRITTEN, FreshQueries, QueryAgent
from clipper_agents.router.query_consumer import BoundedQueryConsumer
from clipper_agents.streaming.dead_letters import MOST_WAITING, DeadLetterSender
from clipper_agents.streaming.outbox import Outbox
from clipper_stream.query.answer import answers_of
from clipper_topics.catalogue import Catalogue

CATALOGUE = Catalogue(partitions=1)
TOPIC = TP(CATALOGUE.queries, 0)


class Fixture:
    """An agent, a router of `app`, and the answers known of before."""

    def __init__(self, folder, max_in_flight=100):
        self.producer, self.effects, self.repeated, self.acknowledged, self.dead = FakeProducer(), [], [], [], []
        self.waiting, self.behind = Counter(), []
        self.app = SimpleNamespace(generation=0, consumer=SimpleNamespace(acknowledge=self.acknowledge))
        self.router, self.decisions = (
            make_router(application("app", ("a:1",)), most_waiting=max_in_flight),
            LogIndex(folder, 3600.0),
        )
        self.consumer = BoundedQueryConsumer(self.app, CATALOGUE.queries, self.router)
        self.dead_letters = DeadLetterSender(Outbox(self.producer), CATALOGUE.dead_letters, Tasks())
        self.agent = QueryAgent(
            self.consumer, self.router, self, FreshQueries(self.router, self.decisions, self), self,
            self.dead_letters, self, self,
        )  # fmt: skip

    def run(self, effects):
        self.effects.append(effects)

    def look(self, chunk, behind):
        self.behind.append(behind)

    def end_audits(self):
        pass

    def unwritten(self, partition):
        return self.waiting[partition]

    def repeat(self, query, before):
        self.repeated.append((query.query_id, before.offset))

    def acknowledge(self, tp, offsets, generation):
        self.acknowledged.append((tp, offsets, generation))

    def count_dead_letters(self, topic, kind, count):
        self.dead.append((topic, kind, count))

    async def receive(self, *values, generation=0):
        headers = [[("content-type", b"application/msgpack")] if value[:1] >= b"\x80" else () for value in values]
        records = [
            record(offset, value, None, CATALOGUE.queries, headers=some)
            for offset, (value, some) in enumerate(zip(values, headers, strict=True))
        ]
        self.agent.receive({TOPIC: records}, generation)
        while self.dead_letters._is_sending:
            await asyncio.sleep(0)

    @property
    def decided(self):
        return [query.query_id for query in self.queries]

    @property
    def queries(self):
        """Those that were decided about."""
        blocks = [answers_of(some) for effects in self.effects for some in effects.block_answers]
        alone = [effects.answers for effects in self.effects]
        return [answer.query for answers in (*alone, *blocks) for answer in answers]


def query(query_id, name="app", number=1.0):
    return json.dumps({"query_id": query_id, "application": name, "input": [number]}).encode()


@pytest.fixture
async def make(tmp_path):
    made = []

    def build(**settings):
        made.append(Fixture(tmp_path, **settings))
        return made[-1]

    yield build
    made[-1].decisions.keep_only(())


@pytest.fixture
async def fixture(make):
    return make()


async def test_a_query_that_was_answered_is_answered_again_and_a_new_one_is_decided(fixture):
    fixture.decisions.of(0).index([("q1", logged(7, "q1"))], 7, 1e9)
    await fixture.receive(query("q1"), query("q2"))
    assert (fixture.repeated, fixture.decided) == ([("q1", 7)], ["q2"])


async def test_the_answer_of_another_application_is_not_that_of_a_query_of_the_same_id(fixture):
    fixture.decisions.of(0).index([("q1", logged(7, "q1", "other"))], 7, 1e9)
    await fixture.receive(query("q1"))
    assert (fixture.repeated, fixture.decided) == ([], ["q1"])


async def test_a_query_that_is_repeated_under_an_id_of_two_applications_is_answered_again(fixture):
    fixture.decisions.of(0).index([("q1", logged(7, "q1", "other")), ("q1", logged(8, "q1"))], 8, 1e9)
    await fixture.receive(query("q1"))
    assert (fixture.repeated, fixture.decided) == ([("q1", 8)], [])


SAME_ID = {
    "JSON": query("q"),
    "with a context": json.dumps({"query_id": "q", "application": "app", "input": [1.0], "context": "ada"}).encode(),
    "msgpack": msgspec.msgpack.encode(json.loads(query("q"))),
}


@pytest.mark.parametrize("others", [1, 2 * BLOCK_FROM], ids=["alone", "in blocks"])
@pytest.mark.parametrize(("first", "second"), [*permutations(SAME_ID, 2)])
async def test_of_queries_with_one_id_the_first_in_the_log_is_decided_about(fixture, first, second, others):
    ids = [f"q{number}" for number in range(others)]
    before, after = [*map(query, ids)], [msgspec.msgpack.encode(json.loads(query(f"packed {one}"))) for one in ids]
    if second == "msgpack":  # so that its block is found first
        before, after = after, before
    await fixture.receive(*before, SAME_ID[first], SAME_ID[second], *after)
    assert [one.offset for one in fixture.queries if one.query_id == "q"] == [others]
    assert len(fixture.queries) == 2 * others + 1


async def test_what_is_no_query_is_a_dead_letter_and_then_acknowledged(fixture):
    await fixture.receive(b"{", query("q1"), b"")
    assert len(fixture.producer.logs[CATALOGUE.dead_letters, 0]) == 2
    assert fixture.dead == [(CATALOGUE.queries, "undecodable", 2)]
    assert fixture.acknowledged == [(TOPIC, [0, 2], 0)]


async def test_records_of_a_generation_that_has_ended_are_left_alone(fixture):
    fixture.app.generation = 1
    await fixture.receive(query("q1"), b"{", generation=0)
    assert (fixture.effects, fixture.acknowledged, fixture.producer.logs) == ([], [], {})


async def test_no_more_is_read_while_as_many_as_may_wait_for_models(make):
    fixture = make(max_in_flight=2)
    fixture.router.admission.enter("app", 2)
    fixture.consumer.update_room()
    waiting = asyncio.create_task(fixture.consumer.wait_for_room())
    await asyncio.sleep(0)
    assert not waiting.done()
    fixture.router.admission.leave("app")
    fixture.consumer.update_room()
    await waiting


async def test_a_drain_ends_when_no_query_is_in_flight_and_reads_no_more(fixture):
    await fixture.receive(query("q1"))
    draining = asyncio.create_task(fixture.consumer.drain())
    waiting = asyncio.create_task(fixture.consumer.wait_for_room())
    await asyncio.sleep(0)
    assert not draining.done()
    fixture.router.reset()
    fixture.consumer.acknowledge(0, [0], 0)
    await draining
    assert not waiting.done()
    waiting.cancel()


def test_a_partition_of_which_much_waits_for_the_broker_is_held_for_a_while(tmp_path):
    fixture = Fixture(tmp_path)
    fixture.waiting[0] = MOST_UNWRITTEN
    assert (fixture.agent.is_held(TOPIC), fixture.agent.is_held(TOPIC._replace(partition=1))) == (True, False)


async def test_bad_records_keep_no_good_one_waiting_and_in_the_end_hold_a_partition(fixture):
    fixture.producer.hold = True
    records = [record(offset, value, None, CATALOGUE.queries) for offset, value in enumerate([b"{", query("q1")])]
    fixture.agent.receive({TOPIC: records}, 0)
    await asyncio.sleep(0)
    assert (fixture.decided, fixture.acknowledged, fixture.agent.is_held(TOPIC)) == (["q1"], [], False)
    fixture.agent.receive({TOPIC: [record(2 + n, b"{", None, CATALOGUE.queries) for n in range(MOST_WAITING)]}, 0)
    assert fixture.agent.is_held(TOPIC)
    while fixture.dead_letters._is_sending:
        fixture.producer.release()
        await asyncio.sleep(0)
    assert not fixture.agent.is_held(TOPIC)
    assert [offset for _, offsets, _ in fixture.acknowledged for offset in offsets] == [0, *range(2, 2002)]


async def test_of_queries_in_a_block_those_that_were_answered_are_answered_again(fixture):
    ids = [f"q{number}" for number in range(2 * BLOCK_FROM)]
    fixture.decisions.of(0).index([("q3", logged(7, "q3"))], 7, 1e9)
    await fixture.receive(*[query(one) for one in ids])
    assert fixture.repeated == [("q3", 7)]
    assert sorted(fixture.decided) == sorted({*ids} - {"q3"})
    assert len({id(owner) for owner in fixture.router._queries._queries.values()}) == 1, "the others stay one block"


async def test_of_queries_in_a_block_none_is_decided_twice(fixture):
    ids = [f"q{number}" for number in range(BLOCK_FROM)]
    await fixture.receive(*[query(one) for one in ids])
    await fixture.receive(*[query(one) for one in ids])
    assert fixture.router._queries.repeats == len(fixture.decided) == BLOCK_FROM


async def test_of_two_records_of_a_query_the_first_in_the_log_is_decided_about(fixture):
    """Also where the second is in a block and the first is not."""
    first = json.dumps({"query_id": "q1", "application": "app", "input": [1.0], "context": "ada"}).encode()
    await fixture.receive(first, *[query(f"q{number}") for number in range(BLOCK_FROM)])
    again = fixture.router._queries._again
    assert [one.offset for records in again.values() for one in records] == [2]
