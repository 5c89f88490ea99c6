"""A prediction is sent, acknowledged, indexed, and only then is its query acknowledged, whoever else writes."""

import asyncio

import pytest
from builders.query_router import application
from unit.router.rig import AT_S, CATALOGUE, query, settle

from clipper_agents.router.clock_skew import STAMP_S, ClockSkew
from clipper_stream.query.answer import refuse
from clipper_stream.query.in_flight import Failure, InFlightQuery
from clipper_topics.codec import JSON_HEADERS

TOPIC = CATALOGUE.predictions


def put(rig, *queries):
    """Answer queries."""
    why = Failure("invalid_input", "for the test")
    rig.prediction_log.put([refuse(InFlightQuery(one), application(), why, AT_S) for one in queries])


async def sent(rig, *queries):
    """Answer them, and wait until the answers are in the log."""
    put(rig, *queries)
    await rig.idle()


def values(rig):
    return [value for _, value, _ in rig.log(TOPIC)]


async def test_queries_are_acknowledged_when_their_predictions_are_in_the_log_and_indexed(rig):
    ids = [f"q{number}" for number in range(5)]
    rig.producer.hold = True
    put(rig, *(query(name, 1, offset=number, key=b"key") for number, name in enumerate(ids)))
    await settle()
    assert (rig.acknowledged, rig.found("q0")) == ([], [None])
    rig.producer.hold = False
    rig.producer.release()
    await rig.idle()
    assert (rig.ids(), rig.found(*ids), rig.log(TOPIC)[0][0]) == (ids, [0, 1, 2, 3, 4], b"key")
    assert rig.acknowledged == [(0, number) for number in range(5)]
    assert rig.log_reader.reads == 0
    assert rig.counts("clipper_predictions_total", "application") == {"app": 5}
    stages = rig.counts("clipper_stage_latency_seconds_count", "stage")
    assert [stages[name] for name in ("wait", "models", "record")] == [5, 5, 5]


async def test_a_prediction_repeats_the_headers_of_the_record_that_it_answers(rig):
    first, second = (("correlation-id", b"first"),), (("correlation-id", b"second"), ("traceparent", b"00-1-2-01"))
    await sent(rig, query("q", 1, 2, echoed=first), query("plain", 1, offset=1))
    (before,) = rig.decisions.of(0).find(["q"])
    rig.prediction_log.repeat(query("q", 1, 2, offset=2, echoed=second), before)
    await rig.idle()
    (_, value, headers), (_, _, plain), (_, again, others) = rig.log(TOPIC)
    assert value == again
    assert (headers, plain, others) == ([*JSON_HEADERS, *first], JSON_HEADERS, [*JSON_HEADERS, *second])


async def test_what_belongs_to_an_older_generation_is_neither_sent_nor_acknowledged(rig):
    rig.generation = 1
    await sent(rig, query("old", 1, generation=0), query("new", 1, offset=3, generation=1))
    assert (rig.ids(), rig.acknowledged) == (["new"], [(0, 3)])


async def test_a_process_that_stood_still_writes_what_is_still_its_own(rig):
    rig.sure.clear()
    put(rig, query("lost", 1))
    await settle()
    assert rig.ids() == []
    rig.generation = 1  # its partitions were with somebody else meanwhile
    rig.sure.set()
    await sent(rig, query("own", 1, generation=1))
    assert rig.ids() == ["own"]


async def test_a_generation_that_ends_meanwhile_leaves_the_rest_to_the_next(rig):
    rig.producer.hold = True
    put(rig, query("q0", 1))
    await settle()
    rig.generation = -1
    rig.producer.release()
    await rig.idle()
    assert (rig.ids(), rig.acknowledged, rig.found("q0")) == (["q0"], [], [None])
    rig.generation = 1
    await rig.restore()
    assert rig.found("q0") == [0]


async def test_a_partition_whose_leader_is_away_keeps_no_other_waiting_and_a_generation_may_end_meanwhile(rig):
    back, submit = asyncio.Event(), rig.outbox.submit

    async def submit_where_there_is_a_leader(topic, partition, records):
        if partition == 0:
            await back.wait()
        return await submit(topic, partition, records)

    rig.outbox.submit = submit_where_there_is_a_leader
    put(rig, query("p0", 1), query("p1", 1, partition=1))
    await settle()
    assert (rig.ids(1), rig.acknowledged) == (["p1"], [(1, 0)])
    assert [rig.prediction_log.unwritten(partition) for partition in (0, 1)] == [1, 0]
    put(rig, query("late", 1, offset=1))
    rig.generation = -1
    back.set()
    await rig.idle()
    assert (rig.ids(), rig.prediction_log.unwritten(0)) == (["p0"], 0)
    assert rig.acknowledged == [(1, 0)]


async def test_a_prediction_that_somebody_else_wrote_first_is_the_decision(rig):
    rig.predict("q0")
    rig.producer.append(TOPIC, 0, b"key", b"no prediction at all")
    await sent(rig, query("q0", 1, offset=4), query("q1", 1, offset=5))
    assert (rig.found("q0", "q1"), rig.acknowledged) == ([0, 3], [(0, 4), (0, 5)])
    assert rig.decisions.of(0).last_offset == 3


async def test_another_routers_prediction_read_before_ours_is_the_decision(rig):
    """Found with two routers of one name: feedback had the log read on, and what followed looked like ours alone."""
    await rig.decide("q0")
    await sent(rig, query("q0", 1, offset=4))
    assert (rig.ids(), rig.found("q0")) == (["q0", "q0"], [0])


async def test_a_query_that_shares_its_id_with_another_application_takes_no_decision_away(rig):
    await sent(rig, query("q", 1, offset=4, application="other"))
    await sent(rig, query("q", 1, offset=5, shares_id=True))
    found = rig.decisions.of(0).about([("q", name, AT_S * 1000) for name in ("other", "app", None)])
    assert (rig.ids(), [one.offset for one in found]) == (["q", "q"], [0, 1, 0])
    assert rig.decisions.of(0).last_offset == 1


async def test_offsets_that_the_broker_did_not_tell_are_read_from_the_log(rig):
    rig.producer.hide_offsets = True
    await sent(rig, *(query(f"q{number}", 1, offset=number) for number in range(8)))
    assert (rig.found("q0", "q7"), len(rig.acknowledged)) == ([0, 7], 8)


async def test_the_same_record_read_again_is_done_and_another_record_is_answered_again(rig):
    await sent(rig, query("q", 1, offset=4))
    (before,) = rig.decisions.of(0).find(["q"])
    rig.prediction_log.repeat(query("q", 1, offset=4), before)
    assert rig.acknowledged == [(0, 4)] * 2
    rig.prediction_log.repeat(query("q", 1, offset=9, key=b"other"), before)
    await rig.idle()
    assert (values(rig), rig.log(TOPIC)[1][0]) == ([before.value] * 2, b"other")
    assert (rig.found("q"), rig.acknowledged[2:]) == ([0], [(0, 9)])


async def test_repeats_of_a_query_in_flight_are_answered_with_it(rig):
    request = rig.ask(query("q", 1, offset=4))["a:1"]
    assert rig.ask(query("q", 1, offset=4), query("q", 1, offset=9)) == {}
    rig.answer(request)
    await rig.idle()
    assert (rig.ids(), rig.acknowledged) == (["q", "q"], [(0, 4), (0, 4), (0, 9)])


async def test_an_end_that_a_broker_said_after_a_freeze_does_not_cost_the_index_also_where_nothing_is_audited(make_rig):
    rig = make_rig(audits=None)
    await sent(rig, query("a", 0), query("b", 1))
    await rig.decide("c")
    rig.log_reader.stale_ends = [1]
    assert await rig.restore() == 0
    assert (rig.found("a", "b", "c"), rig.prediction_log.unwritten(0)) == ([0, 1, 2], 0)


async def test_an_index_that_is_ahead_of_its_log_is_built_anew(rig):
    """The broker's folder was wiped, the router's was not."""
    await rig.decide("q0", "more", "and more")
    rig.log(TOPIC).clear()
    rig.predict("q1")
    await rig.restore()
    assert rig.found("q0", "q1") == [None, 0]
    assert rig.decisions.of(0).last_offset == 1, "the marker"


async def test_a_record_that_the_broker_refuses_ends_the_recorder(rig):
    rig.producer.failure = RuntimeError("refused")
    put(rig, query("q", 1))
    await settle()
    assert (rig.tasks.failures.pop(), rig.acknowledged) == (rig.producer.failure, [])


async def test_the_brokers_stamp_is_told_with_when_the_batch_was_sent_and_acknowledged(make_rig):
    skew, times = ClockSkew(), iter((100.0, 100.0, 100.5))
    rig = make_rig(skew=skew, clock=lambda: next(times))
    rig.producer.timestamp_ms = 99_000
    put(rig)  # nothing is sent: nothing is told
    assert skew.take() is None
    await sent(rig, query("q", 1))
    assert skew.take() == pytest.approx(1.0 - STAMP_S)
