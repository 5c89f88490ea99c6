"""A prediction is sent, acknowledged, indexed, and only then is its query acknowledged, whoever else writes."""

import asyncio
import time

import pytest
from builders.feedback import logged
from builders.kafka import FakeLogReader, FakeProducer, Tasks
from builders.query_router import NOW_S, application, query

from clipper_agents.router.clock_skew import STAMP_S, ClockSkew
from clipper_agents.router.decision_index import LogIndex
from clipper_agents.router.prediction_log import PredictionLog
from clipper_agents.streaming.outbox import Outbox
from clipper_stream.query.answer import refuse
from clipper_stream.query.in_flight import Failure, InFlightQuery
from clipper_topics.codec import JSON_HEADERS
from clipper_topics.logged_records import LoggedRecord, prediction_head

TOPIC = "predictions"


def answer_to(one):
    pending = InFlightQuery(one)
    return refuse(pending, application(), Failure("invalid_input", "for the test"), NOW_S)


class Fixture:
    """A recorder whose surroundings a test looks into and changes."""

    def __init__(self, folder, **settings):
        self.producer = FakeProducer(batch_bytes=700)
        self.reader = FakeLogReader(self.producer, timestamp_ms=int(NOW_S * 1000))
        self.decisions = LogIndex(folder, 3600.0)
        self.tasks = Tasks()
        self.generation, self.acknowledged, self.repeats, self.sent = 0, [], {}, []
        self.sure = asyncio.Event()
        self.sure.set()
        self.recorder = PredictionLog(
            Outbox(self.producer), self.reader, TOPIC, self.decisions, consumer=self, router=self, tasks=self.tasks,
            metrics=self, **settings,
        )  # fmt: skip

    def recorded(self, one):
        return self.repeats.pop(one.query_id, [])

    def observe_predictions(self, application, outcome, reason, latencies_s, objective_s):
        self.sent += latencies_s

    def observe_stages(self, waits_s, models_s, recorded_s):
        assert len(waits_s) == len(models_s)

    async def confirmed(self):
        await self.sure.wait()

    def acknowledge(self, partition, offsets, generation):
        self.acknowledged += [(partition, offset, generation) for offset in offsets]

    def log(self, partition=0):
        return self.producer.logs.get((TOPIC, partition), [])

    def ids(self, partition=0):
        return [head_of_value(value).query_id for _, value, _ in self.log(partition)]

    async def restore(self):
        return await self.recorder.restore({0: 0}, self.producer.mark(TOPIC))

    def found(self, *query_ids, partition=0):
        return [one and one.offset for one in self.decisions.of(partition).find(query_ids)]


def head_of_value(value):
    return prediction_head(LoggedRecord(0, value, msgpack=False))


@pytest.fixture
async def fixture(tmp_path):
    made = Fixture(tmp_path)
    yield made
    assert made.tasks.failures == []
    made.decisions.keep_only(())


async def test_queries_are_acknowledged_when_their_predictions_are_in_the_log_and_indexed(fixture):
    queries = [query(f"q{number}", 1, offset=number, key=b"key") for number in range(5)]
    fixture.producer.hold = True
    fixture.recorder.put([answer_to(one) for one in queries])
    for _ in range(20):
        await asyncio.sleep(0)
    assert (fixture.acknowledged, fixture.found("q0")) == ([], [None])
    fixture.producer.hold = False
    while fixture.producer._held:
        fixture.producer.release()
        await asyncio.sleep(0)
    await fixture.recorder.idle()
    assert fixture.ids() == [one.query_id for one in queries]
    assert fixture.log()[0][0] == b"key"
    assert fixture.found(*(one.query_id for one in queries)) == [0, 1, 2, 3, 4]
    assert fixture.acknowledged == [(0, number, 0) for number in range(5)]
    assert fixture.reader.reads == 0
    assert len(fixture.sent) == 5


async def test_a_prediction_repeats_the_headers_of_the_record_that_it_answers(fixture):
    first, second = (("correlation-id", b"first"),), (("correlation-id", b"second"), ("traceparent", b"00-1-2-01"))
    fixture.recorder.put([answer_to(query("q", 1, 2, echoed=first)), answer_to(query("plain", 1, offset=1))])
    await fixture.recorder.idle()
    (before,) = fixture.decisions.of(0).find(["q"])
    fixture.recorder.repeat(query("q", 1, 2, offset=2, echoed=second), before)
    await fixture.recorder.idle()
    (_, value, headers), (_, _, plain), (_, again, others) = fixture.log()
    assert value == again
    assert (headers, plain, others) == ([*JSON_HEADERS, *first], JSON_HEADERS, [*JSON_HEADERS, *second])


async def test_what_belongs_to_an_older_generation_is_neither_sent_nor_acknowledged(fixture):
    fixture.generation = 1
    fixture.recorder.put([answer_to(query("old", 1, generation=0)), answer_to(query("new", 1, generation=1))])
    await fixture.recorder.idle()
    assert fixture.ids() == ["new"]
    assert [generation for *_, generation in fixture.acknowledged] == [1]


async def test_a_process_that_stood_still_writes_what_is_still_its_own(fixture):
    fixture.sure.clear()
    fixture.recorder.put([answer_to(query("lost", 1))])
    for _ in range(20):
        await asyncio.sleep(0)
    assert fixture.ids() == []
    fixture.generation = 1  # its partitions were with somebody else meanwhile
    fixture.recorder.put([answer_to(query("own", 1, generation=1))])
    fixture.sure.set()
    await fixture.recorder.idle()
    assert fixture.ids() == ["own"]


async def test_a_generation_that_ends_meanwhile_leaves_the_rest_to_the_next(fixture):
    fixture.producer.hold = True
    fixture.recorder.put([answer_to(query("q0", 1))])
    for _ in range(20):
        await asyncio.sleep(0)
    fixture.generation = -1
    fixture.producer.release()
    await fixture.recorder.idle()
    assert (fixture.ids(), fixture.acknowledged, fixture.found("q0")) == (["q0"], [], [None])
    fixture.generation = 1
    await fixture.restore()
    assert fixture.found("q0") == [0]


async def test_a_partition_whose_leader_is_away_keeps_no_other_waiting(fixture):
    outbox, submit, back = fixture.recorder._log._outbox, fixture.recorder._log._outbox.submit, asyncio.Event()

    async def submit_where_there_is_a_leader(topic, partition, records):
        if partition == 0:
            await back.wait()
        return await submit(topic, partition, records)

    outbox.submit = submit_where_there_is_a_leader
    fixture.recorder.put([answer_to(query("p0", 1)), answer_to(query("p1", 1, partition=1))])
    while not fixture.acknowledged:
        await asyncio.sleep(0)
    assert (fixture.ids(1), fixture.recorder.unwritten(0), fixture.recorder.unwritten(1)) == (["p1"], 1, 0)
    back.set()
    await fixture.recorder.idle()
    assert (fixture.ids(0), fixture.recorder.unwritten(0)) == (["p0"], 0)


async def test_a_generation_that_ends_between_two_partitions_sends_nothing_to_the_second(fixture):
    fixture.recorder.put([answer_to(query("p0", 1)), answer_to(query("p1", 1, partition=1))])
    outbox, submit = fixture.recorder._log._outbox, fixture.recorder._log._outbox.submit

    async def submit_and_lose(*args):
        fixture.generation = -1
        return await submit(*args)

    outbox.submit = submit_and_lose
    await fixture.recorder.idle()
    assert (len(fixture.log(0)), len(fixture.log(1))) == (1, 0)


async def test_a_prediction_that_somebody_else_wrote_first_is_the_decision(fixture):
    fixture.producer.append(TOPIC, 0, b"key", logged(0, "q0").value)
    fixture.producer.append(TOPIC, 0, b"key", b"no prediction at all")
    fixture.recorder.put([answer_to(query("q0", 1, offset=4)), answer_to(query("q1", 1, offset=5))])
    await fixture.recorder.idle()
    assert fixture.found("q0", "q1") == [0, 3]
    assert [offset for _, offset, _ in fixture.acknowledged] == [4, 5]
    assert fixture.decisions.of(0).last_offset == 3


async def test_another_routers_prediction_read_before_ours_is_the_decision(fixture):
    """Found with two routers of one name: feedback had the log read on, and what followed looked like ours alone."""
    fixture.reader._timestamp_ms = int(time.time() * 1000)
    fixture.producer.append(TOPIC, 0, b"key", logged(0, "q0").value)
    await fixture.recorder.catch_up([0])
    fixture.recorder.put([answer_to(query("q0", 1, offset=4))])
    await fixture.recorder.idle()
    assert (fixture.ids(), fixture.found("q0")) == (["q0", "q0"], [0])


async def test_a_query_that_shares_its_id_with_another_application_takes_no_decision_away(fixture):
    fixture.recorder.put([answer_to(query("q", 1, offset=4, application="other"))])
    await fixture.recorder.idle()
    fixture.recorder.put([answer_to(query("q", 1, offset=5, shares_id=True))])
    await fixture.recorder.idle()
    found = fixture.decisions.of(0).about([("q", name, NOW_S * 1000) for name in ("other", "app", None)])
    assert (fixture.ids(), [one.offset for one in found]) == (["q", "q"], [0, 1, 0])
    assert fixture.decisions.of(0).last_offset == 1


async def test_offsets_that_the_broker_did_not_tell_are_read_from_the_log(fixture):
    fixture.producer.hide_offsets = True
    fixture.recorder.put([answer_to(query(f"q{number}", 1, offset=number)) for number in range(8)])
    await fixture.recorder.idle()
    assert fixture.found("q0", "q7") == [0, 7]
    assert len(fixture.acknowledged) == 8


async def test_the_same_record_read_again_is_done_and_another_record_is_answered_again(fixture):
    fixture.recorder.put([answer_to(query("q", 1, offset=4))])
    await fixture.recorder.idle()
    (before,) = fixture.decisions.of(0).find(["q"])
    fixture.recorder.repeat(query("q", 1, offset=4), before)
    assert fixture.acknowledged == [(0, 4, 0)] * 2
    fixture.recorder.repeat(query("q", 1, offset=9, key=b"other"), before)
    await fixture.recorder.idle()
    assert [value for _, value, _ in fixture.log()] == [before.value] * 2
    assert fixture.log()[1][0] == b"other"
    assert (fixture.found("q"), fixture.acknowledged[-1]) == ([0], (0, 9, 0))


async def test_repeats_of_a_query_in_flight_are_answered_with_it(fixture):
    fixture.repeats["q"] = [query("q", 1, offset=4), query("q", 1, offset=9)]
    fixture.recorder.put([answer_to(query("q", 1, offset=4))])
    await fixture.recorder.idle()
    assert fixture.ids() == ["q", "q"]
    assert [offset for _, offset, _ in fixture.acknowledged] == [4, 4, 9]


async def test_an_end_that_a_broker_said_after_a_freeze_does_not_cost_the_index(fixture):
    fixture.recorder.put([answer_to(query("a", 0)), answer_to(query("b", 1))])
    await fixture.recorder.idle()
    fixture.reader.stale_ends = [1]
    assert await fixture.restore() == 0
    assert fixture.found("a", "b") == [0, 1]


async def test_an_index_that_is_ahead_of_its_log_is_built_anew(fixture):
    """The broker's folder was wiped, the router's was not."""
    fixture.decisions.of(0).index([("q0", logged(50, "q0"))], 50, NOW_S)
    fixture.producer.append(TOPIC, 0, None, logged(0, "q1").value)
    await fixture.restore()
    assert fixture.found("q0", "q1") == [None, 0]
    assert fixture.decisions.of(0).last_offset == 1, "the marker"


async def test_a_record_that_the_broker_refuses_ends_the_recorder(tmp_path):
    fixture = Fixture(tmp_path)
    fixture.producer.failure = RuntimeError("refused")
    fixture.recorder.put([answer_to(query("q", 1))])
    while not fixture.tasks.failures:
        await asyncio.sleep(0)
    assert ([str(one) for one in fixture.tasks.failures], fixture.acknowledged) == (["refused"], [])


async def test_the_brokers_stamp_is_told_with_when_the_batch_was_sent_and_acknowledged(tmp_path):
    skew, times = ClockSkew(), iter((100.0, 100.0, 100.5))
    fixture = Fixture(tmp_path, skew=skew, clock=lambda: next(times))
    recorder = fixture.recorder
    fixture.producer.timestamp_ms = 99_000
    recorder.put([])  # nothing is sent: nothing is told
    assert skew.take() is None
    recorder.put([answer_to(query("q", 1))])
    await recorder.idle()
    fixture.decisions.keep_only(())
    assert skew.take() == pytest.approx(1.0 - STAMP_S)
