"""Predictions and audits are sent and indexed, and only then is their query acknowledged, whoever dies or writes."""

import asyncio
import time
from itertools import count

import msgspec
import pytest
from builders.query_router import application
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.router.rig import AT_S, CATALOGUE, FakeTimeLoop, RouterRig, query, query_records, settle

from clipper_agents.router.queries import decode_queries
from clipper_agents.router.self_report import STAMP_S, ClockSkew
from clipper_stream.query.router import LOST_AUDIT
from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.logged_records import audit_key, decode_audit
from clipper_topics.prediction import ModelAnswer

TOPIC = CATALOGUE.predictions
AUDITED = application("app", ("a:1",), "exp4", shadows={"s:1": 1.0}, canaries={"c:1": 0.0})


@pytest.fixture
async def rig(make_rig):
    return make_rig(AUDITED, application("other"))


def plain(query_id, **changes):
    """A query that names its models, and so is not audited."""
    return query(query_id, 1, **dict(models=["a:1"]) | changes)


async def answer(rig, *queries):
    for request in rig.ask(*queries).values():
        rig.answer(request)
    await settle()


def audits(rig):
    return [codec.audits.decode(value, headers) for _, value, headers in rig.log(CATALOGUE.audits) if value]


class Life:
    """What happens to one query, of which two records may be read, word by word."""

    def __init__(self, rig):
        self.rig, self.requests, self.models, generations = rig, {}, None, count(1)
        self.words = {
            "read": self.read,
            "copied": lambda: self.read(offset=9),
            "plain": lambda: self.read(models=["a:1"]),
            "served": lambda: self.answer("a:1", int),
            "shadowed": lambda: self.answer("s:1", lambda value: 7),
            "expired": lambda: rig.carry_out(rig.router.expire(AT_S + 1.0)),
            "held": lambda: setattr(rig.producer, "hold", True),
            "released": lambda: (setattr(rig.producer, "hold", False), rig.producer.release()),
            "doubted": rig.sure.clear,
            "sure": rig.sure.set,
            "revoked": lambda: (setattr(rig, "generation", -1), rig.router.reset()),
            "begun": lambda: setattr(rig, "generation", next(generations)),
        }

    def read(self, offset=4, models=None):
        self.models = models or self.models
        one = query("q", 3, offset=offset, key=b"key", models=self.models, generation=self.rig.generation)
        if self.rig.generation >= 0:  # else nothing is read
            self.requests |= self.rig.ask(one)

    def answer(self, ref, model):
        if ref in self.requests:
            self.rig.answer(self.requests[ref], model)

    async def lives(self, words):
        """Predictions and audits in the log afterwards, and the offsets that are acknowledged."""
        for word in words.replace("restored", "revoked released sure begun").split():
            self.words[word]()
            await settle()
            if word == "begun":
                await self.rig.restore()
        return len(self.rig.predictions()), len(audits(self.rig)), [offset for _, offset in self.rig.acknowledged]


LIVES: dict[str, list] = {
    "the broker has it before it is acknowledged": [("held plain served", 1, 0, []), ("released", 1, 0, [4])],
    "the same record read again is done": [("plain served read", 1, 0, [4, 4]), ("copied", 2, 0, [4, 4, 9])],
    "it is read again in flight": [("plain read copied", 0, 0, []), ("served", 2, 0, [4, 4, 9])],
    "the answer does not wait for a shadow, the offset does": [("read served", 1, 0, []), ("shadowed", 1, 1, [4])],
    "an audit that is complete first waits": [("read shadowed", 0, 0, []), ("served", 1, 1, [4])],
    "the deadline ends an audit": [("read served", 1, 0, []), ("expired", 1, 1, [4])],
    "it is read again during its audit": [("read served read", 1, 0, []), ("shadowed read", 1, 1, [4, 4])],
    "another record of it owes no audit": [("read served copied", 2, 0, [9]), ("shadowed", 2, 1, [9, 4])],
    "its router dies before its audit": [("read served restored", 1, 0, []), ("read read", 1, 1, [4, 4])],
    "its partition is lost before it is sent": [("doubted plain served", 0, 0, []), ("revoked sure", 0, 0, [])],
    "it is lost on the way": [("held plain served revoked released", 1, 0, []), ("restored read", 1, 0, [4])],
    "its partition is lost before its audit": [("read served revoked shadowed", 1, 0, [])],
}  # fmt: skip


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
async def test_a_query_is_acknowledged_when_its_prediction_and_its_audit_are_in_the_log(rig, life):
    one = Life(rig)
    for words, *written in life:
        assert await one.lives(words) == tuple(written)


WORDS = sorted({word for life in LIVES.values() for step in life for word in str(step[0]).split()})


@settings(max_examples=40)
@given(words=st.lists(st.sampled_from(WORDS), max_size=12))
def test_whatever_happens_a_query_has_one_decision_and_both_its_records_are_acknowledged_behind_it(
    words, tmp_path_factory
):
    async def live():
        rig = RouterRig(tmp_path_factory.mktemp("rig"), AUDITED)
        life = Life(rig)
        for word in [*words, "restored", "read", "copied", "served", "expired"]:
            predictions, audited, acknowledged = await life.lives(word)
            assert predictions >= len({*acknowledged})
            decided = rig.predictions()[:1]
            assert audited >= sum(one.audited and one.query_offset in acknowledged for one in decided)
        assert {4, 9} == {*acknowledged}
        assert len({value for _, value, _ in rig.log(TOPIC) if value}) == 1
        assert audited == sum(one.audited for one in decided)
        assert rig.tasks.failures == []
        rig.close()

    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        runner.run(live())


async def test_records_are_indexed_where_they_are_and_counted(rig):
    ids = [f"q{number}" for number in range(5)]
    await answer(rig, *(plain(name, offset=number, key=b"key") for number, name in enumerate(ids)))
    assert (rig.ids(), rig.found(*ids), rig.log(TOPIC)[0][0], rig.log_reader.reads) == (ids, [0, 1, 2, 3, 4], b"key", 0)
    assert rig.acknowledged == [(0, number) for number in range(5)]
    assert rig.counts("clipper_predictions_total", "application") == {"app": 5}
    stages = rig.counts("clipper_stage_latency_seconds_count", "stage")
    assert [stages[name] for name in ("wait", "models", "record")] == [5, 5, 5]


ASKED = ("s:1", 7, 1.0, False)
ENDS = [("shadowed", [ASKED], []), ("expired", [], [("s", "late")]), ("restored read", [], [("s", LOST_AUDIT[0])])]


@pytest.mark.parametrize(("end", "models", "missing"), ENDS)
async def test_an_audit_says_what_was_asked_for_the_log_only_and_who_is_missing(rig, end, models, missing):
    await Life(rig).lives(f"read served {end}")
    ((prediction,), (audit,)) = rig.predictions(), audits(rig)
    assert (prediction.output, prediction.audited, [use.model for use in prediction.models]) == (3, True, ["a"])
    assert (audit.query_id, audit.application, audit.query_offset) == ("q", "app", 4)
    uses = [(f"{use.model}:{use.version}", use.output, use.propensity, use.served) for use in audit.models]
    assert (uses, [(one.model, one.reason) for one in audit.missing]) == (models, missing)
    assert not any(one.served for one in audit.missing)
    log = rig.log(CATALOGUE.audits)
    assert (log[-1][0], rig.router.in_flight) == (b"key", 0)
    assert rig.audits[0].find([audit_key("q", 4)])[0].offset == len(log) - 1


async def test_an_output_that_no_record_holds_costs_only_its_own_query_the_answer(rig):
    contents = ({"query_id": f"q{number}", "application": "other", "input": [number]} for number in range(8))
    batches, _ = decode_queries(query_records(*map(msgspec.msgpack.encode, contents)), 0)
    (request,) = rig.ask(*batches).values()
    rig.answer(request, lambda row: 10**400 if row == 3 else 1)
    await settle()
    assert [(one.query_id, one.reason) for one in rig.predictions() if one.default] == [("q3", "errors")]
    assert (len(rig.ids()), len(rig.acknowledged)) == (8, 8)


async def test_a_prediction_repeats_the_headers_of_the_record_that_it_answers(rig):
    first, second = (("correlation-id", b"first"),), (("correlation-id", b"second"), ("traceparent", b"00-1-2-01"))
    await answer(rig, plain("q", echoed=first), plain("plain", offset=1))
    rig.ask(plain("q", offset=2, echoed=second))
    await settle()
    (_, value, headers), (_, _, others), (_, again, repeated) = rig.log(TOPIC)
    assert value == again
    json = codec.JSON_HEADERS
    assert (headers, others, repeated) == ([*json, *first], json, [*json, *second])


async def test_a_partition_whose_leader_is_away_keeps_no_other_waiting_and_its_generation_may_end(rig):
    back, submit = asyncio.Event(), rig.outbox.submit

    async def submit_where_there_is_a_leader(topic, partition, records):
        if partition == 0:
            await back.wait()
        return await submit(topic, partition, records)

    rig.outbox.submit = submit_where_there_is_a_leader
    await answer(rig, plain("p0"), plain("p1", partition=1))
    assert (rig.ids(1), rig.acknowledged) == (["p1"], [(1, 0)])
    assert [rig.logs.unwritten(partition) for partition in (0, 1)] == [1, 0]
    await answer(rig, plain("late", offset=1))
    rig.generation = -1
    back.set()
    await settle()
    assert (rig.ids(), rig.logs.unwritten(0), rig.acknowledged) == (["p0"], 0, [(1, 0)])


@pytest.mark.parametrize("read", [False, True])
async def test_a_prediction_that_somebody_else_wrote_first_is_the_decision_whether_or_not_it_was_read(rig, read):
    """Found with two routers of one name: feedback had the log read on, and what followed looked like ours alone."""
    rig.predict("q0")
    rig.producer.append(TOPIC, 0, b"key", b"no prediction at all")
    if read:
        await rig.decide()
    await answer(rig, plain("q0", offset=4), plain("q1", offset=5))
    assert (rig.found("q0", "q1"), rig.acknowledged) == ([0, 3], [(0, 4), (0, 5)])
    assert rig.decisions[0].last_offset == 3


async def test_somebody_elses_prediction_that_came_first_is_owed_an_audit(rig):
    """A router that had lost the partition decided on an audit, ours on none: the first prediction counts."""
    rig.predict("q", audited=True, query_offset=4)
    assert await Life(rig).lives("plain served") == (2, 1, [4])
    (audit,) = audits(rig)
    assert (audit.query_id, audit.query_offset, audit.models) == ("q", 4, [])


async def test_of_two_audits_the_first_in_the_log_counts_whoever_wrote_it(rig):
    theirs = Audit(query_id="q", query_offset=4, models=[ModelAnswer(model="x", version="1", propensity=1.0, output=9)])
    for value in (codec.audits.encode(theirs), b"no audit at all"):
        rig.producer.append(CATALOGUE.audits, 0, b"key", value)
    life = Life(rig)
    for word in ("read", "served", "shadowed"):
        life.words[word]()
        await settle()
    (first,) = rig.audits[0].find([audit_key("q", 4)])
    assert (decode_audit(first), len(rig.log(CATALOGUE.audits)), rig.acknowledged) == (theirs, 3, [(0, 4)])


async def test_a_query_that_shares_its_id_with_another_application_takes_no_decision_away(rig):
    await answer(rig, query("q", 1, offset=4, application="other"))
    rig.ask(plain("q", offset=5))
    await settle()
    assert (rig.ids(), rig.decisions[0].last_offset) == (["q", "q"], 1)
    for _ in range(2):  # the second time by what the log says alone
        found = rig.decisions[0].about([("q", name, AT_S * 1000) for name in ("other", "app", None)])
        assert [one.offset for one in found] == [0, 1, 0]
        rig.decisions[0].clear()
        await rig.restore()


async def test_offsets_that_the_broker_did_not_tell_are_read_from_the_log(rig):
    rig.producer.hide_offsets = True
    await answer(rig, *(plain(f"q{number}", offset=number) for number in range(8)))
    assert (rig.found("q0", "q7"), len(rig.acknowledged)) == ([0, 7], 8)


async def test_an_end_that_a_broker_said_after_a_freeze_does_not_cost_the_index(make_rig):
    rig = make_rig()
    await answer(rig, plain("a"), plain("b", offset=1))
    await rig.decide("c")
    rig.log_reader.stale_ends = [1]
    assert await rig.restore() == 0
    assert (rig.found("a", "b", "c"), rig.logs.unwritten(0)) == ([0, 1, 2], 0)


async def test_an_index_that_is_ahead_of_its_log_is_built_anew(rig):
    """The broker's folder was wiped, the router's was not."""
    await rig.decide("q0", "more", "and more")
    rig.log(TOPIC).clear()
    rig.predict("q1")
    await rig.restore()
    assert rig.found("q0", "q1") == [None, 0]
    assert rig.decisions[0].last_offset == 1, "the marker"


async def test_a_record_that_the_broker_refuses_ends_the_recorder(rig):
    rig.producer.failure = RuntimeError("refused")
    await answer(rig, plain("q"))
    assert (rig.tasks.failures.pop(), rig.acknowledged) == (rig.producer.failure, [])


async def test_the_brokers_stamp_is_told_with_when_the_batch_was_sent_and_acknowledged(make_rig):
    rig = make_rig(skew=(skew := ClockSkew()))
    rig.logs.predictions.add([])  # nothing is sent: nothing is told
    assert skew.take() is None
    rig.producer.timestamp_ms = int((time.time() - 1000.0) * 1000)
    await answer(rig, plain("q"))
    assert 1000.0 - STAMP_S <= skew.take() < 1600.0
