"""New queries go to the router, known ones are answered again, and what is no query becomes a dead letter.

The queries are years old, so that the router decides at once: each is past its deadline.
"""

import asyncio
import json
from itertools import permutations

import msgspec
import pytest
from unit.router.rig import AT_S, CATALOGUE, QUERIES, settle
from unit.router.rig import query as rig_query

from clipper_agents.router.queries import MOST_UNWRITTEN
from clipper_agents.streaming.dead_letters import MOST_WAITING


def query(query_id, **more):
    return json.dumps({"query_id": query_id, "application": "app", "input": [1.0]} | more).encode()


def packed(value):
    return msgspec.msgpack.encode(json.loads(value))


async def release(rig):
    rig.producer.hold = False
    rig.producer.release()
    await settle()


def answered(rig, query_id):
    """Offsets of the queries that predictions under an id are about: the same one, where one is repeated."""
    return [one.query_offset for one in rig.predictions() if one.query_id == query_id]


@pytest.mark.parametrize(
    ("decided", "about"),
    [({"app": 70}, 70), ({"other": 70}, 0), ({"other": 70, "app": 80}, 80)],
    ids=["answered before", "the id is another application's", "the id is of two"],
)
async def test_a_query_that_was_answered_is_answered_again_and_a_new_one_is_decided(rig, decided, about):
    for name, offset in decided.items():
        await rig.decide("q1", application=name, query_offset=offset)
    await rig.read(query("q1"), query("q2"))
    assert (answered(rig, "q1"), answered(rig, "q2")) == ([*decided.values(), about], [1])
    assert sorted(rig.acknowledged) == [(0, 0), (0, 1)]


async def test_of_queries_that_are_in_the_log_no_more_none_is_received(rig):
    assert rig.agent.receive({QUERIES: []}, rig.generation) == set()


async def test_an_id_may_be_decided_about_while_its_query_is_in_flight_or_may_be_unread(rig):
    """Feedback with an id that nobody has held up all other feedback while any query was open."""
    assert not rig.agent.may_decide(QUERIES, "unknown", 0), "nothing was asked yet"
    assert rig.agent.may_decide(QUERIES, "unknown", 1), "one is not read"
    await rig.read(query("late"))
    rig.ask(rig_query("open", 7))
    assert [rig.agent.may_decide(QUERIES, one, 0) for one in ("open", "late", "unknown")] == [True, False, False]
    assert rig.agent.may_decide(QUERIES, "unknown", 1), "the log has one more than was read"
    rig.first = 2
    assert rig.agent.may_decide(QUERIES, "unknown", 0), "one that was taken waits for room"
    rig.generation += 1
    assert rig.agent.may_decide(QUERIES, "unknown", 0)
    rig.start = 2
    assert not rig.agent.may_decide(QUERIES, "unknown", 0), "all of it was finished in an earlier generation"


SAME_ID = {"JSON": query("q"), "with a context": query("q", context="ada"), "msgpack": packed(query("q"))}


@pytest.mark.parametrize("others", [1, 16])
@pytest.mark.parametrize(("first", "second"), [*permutations(SAME_ID, 2)])
async def test_of_queries_with_one_id_the_first_in_the_log_is_decided_about(rig, first, second, others):
    ids = [f"q{number}" for number in range(others)]
    before, after = [*map(query, ids)], [packed(query(f"packed {one}")) for one in ids]
    if second == "msgpack":  # so that its batch is found first
        before, after = after, before
    await rig.read(*before, SAME_ID[first], SAME_ID[second], *after)
    assert answered(rig, "q") == [others] * 2
    assert len(rig.ids()) == len(rig.acknowledged) == 2 * others + 2


async def test_what_is_no_query_is_a_dead_letter_and_then_acknowledged(rig):
    await rig.read(b"{", query("q1"), b"")
    assert len(rig.log(CATALOGUE.dead_letters)) == 2
    assert rig.counts("clipper_dead_letters_total", "reason") == {"undecodable": 2}
    assert rig.counts("clipper_dead_letters_total", "topic") == {CATALOGUE.queries: 2}
    assert sorted(rig.acknowledged) == [(0, 0), (0, 1), (0, 2)]


async def test_records_of_a_generation_that_has_ended_are_left_alone(rig):
    rig.generation = 1
    await rig.read(query("q1"), b"{", generation=0)
    assert (rig.producer.logs, rig.acknowledged) == ({}, [])


async def test_no_more_is_read_while_as_many_as_may_wait_for_models(make_rig):
    rig = make_rig(most_waiting=2)
    rig.router.admission.enter("app", 2)
    rig.carry_out(rig.router.end_turn(AT_S))
    assert not rig.pipeline.room.is_set()
    rig.router.admission.leave("app")
    rig.pipeline.acknowledge(0, [], 0)
    assert rig.pipeline.room.is_set()


async def test_a_drain_ends_when_no_query_is_in_flight_and_reads_no_more(rig):
    rig.producer.hold = True
    await rig.read(query("q1"))
    draining = asyncio.create_task(rig.pipeline.drain())
    await settle()
    assert not draining.done()
    rig.producer.release()
    await draining
    assert not rig.pipeline.room.is_set()


async def test_a_partition_of_which_much_waits_for_the_broker_is_held_for_a_while(rig):
    rig.producer.hold = True
    for count, held in ((MOST_UNWRITTEN - 1, False), (1, True)):
        await rig.read(*(query(f"q{count}/{number}") for number in range(count)))
        assert (rig.agent.is_held(QUERIES), rig.agent.is_held(QUERIES._replace(partition=1))) == (held, False)
    await release(rig)
    assert not rig.agent.is_held(QUERIES)


async def test_bad_records_keep_no_good_one_waiting_and_in_the_end_hold_a_partition(rig):
    rig.producer.hold = True
    await rig.read(b"{", query("q1"))
    assert (rig.ids(), rig.acknowledged, rig.agent.is_held(QUERIES)) == (["q1"], [], False)
    await rig.read(*[b"{"] * MOST_WAITING, first=2)
    assert rig.agent.is_held(QUERIES)
    await release(rig)
    assert not rig.agent.is_held(QUERIES)
    assert sorted(rig.acknowledged) == [(0, offset) for offset in range(MOST_WAITING + 2)]
