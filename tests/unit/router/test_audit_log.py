"""An audit follows its prediction into the log, and the query is acknowledged with it, whoever dies in between."""

import pytest
from builders.feedback import prediction
from builders.kafka import FakeLogReader, FakeProducer, Tasks
from builders.query_router import NOW_S, application, make_router, outputs_of, query

from clipper_agents.router.audit_log import AuditLog
from clipper_agents.router.decision_index import LogIndex
from clipper_agents.router.prediction_log import PredictionLog
from clipper_agents.router.prediction_records import encode_audit
from clipper_agents.streaming.outbox import Outbox
from clipper_stream.query.answer import LOST_AUDIT
from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.logged_records import audit_key, decode_audit
from clipper_topics.prediction import ModelAnswer

PREDICTIONS, AUDITS = "predictions", "audits"
APP = application("app", ("a:1",), "exp4", shadows={"s:1": 1.0}, canaries={"c:1": 0.0})


class Fixture:
    """A router and its two recorders, on logs in memory."""

    def __init__(self, folder):
        self.producer = FakeProducer()
        self.reader = FakeLogReader(self.producer, timestamp_ms=int(NOW_S * 1000))
        self.decisions, self.audits = LogIndex(folder / "decisions", 3600.0), LogIndex(folder / "audits", 3600.0)
        self.router, self.generation, self.acknowledged = make_router(APP), 0, []
        self.tasks = Tasks()
        self.auditing = AuditLog(
            Outbox(self.producer), self.reader, AUDITS, self.audits, consumer=self, auditing=self.router,
            tasks=self.tasks,
        )  # fmt: skip
        self.recorder = PredictionLog(
            Outbox(self.producer), self.reader, PREDICTIONS, self.decisions, consumer=self, router=self.router,
            tasks=self.tasks, audits=self.auditing,
        )  # fmt: skip

    async def confirmed(self):
        """Nothing stood still."""

    def acknowledge(self, partition, offsets, generation):
        self.acknowledged += offsets

    def carry_out(self, effects):
        self.recorder.put(effects.answers, effects.audits)
        return {request.ref: request for request in effects.requests}

    def ask(self, one):
        return self.carry_out(self.router.receive([one], NOW_S))

    def answer(self, request, model=int):
        self.carry_out(self.router.gather([outputs_of(request, model)], NOW_S + 0.1))

    async def idle(self):
        for _ in range(3):
            await self.recorder.idle()

    def log(self, topic):
        decode = (codec.predictions if topic == PREDICTIONS else codec.audits).decode
        return [decode(value, headers) for _, value, headers in self.producer.logs.get((topic, 0), []) if value]

    def known(self, one):
        (logged,) = self.decisions.of(one.partition).find([one.query_id])
        return logged


@pytest.fixture
async def fixture(tmp_path):
    made = Fixture(tmp_path)
    yield made
    assert made.tasks.failures == []
    made.decisions.keep_only(())
    made.audits.keep_only(())


async def test_the_answer_does_not_wait_for_a_shadow_and_the_offset_does(fixture):
    asked = fixture.ask(query("q", 3, offset=4, key=b"key"))
    fixture.answer(asked["a:1"])
    await fixture.idle()
    (answer,) = fixture.log(PREDICTIONS)
    assert (answer.output, answer.audited, [use.model for use in answer.models]) == (3, True, ["a"])
    assert (fixture.log(AUDITS), fixture.acknowledged, fixture.router.in_flight) == ([], [], 1)
    fixture.answer(asked["s:1"], lambda value: 7)
    await fixture.idle()
    (audit,) = fixture.log(AUDITS)
    assert (audit.query_id, audit.application, audit.query_offset, audit.missing) == ("q", "app", 4, [])
    ((use),) = audit.models
    assert (f"{use.model}:{use.version}", use.output, use.propensity, use.served) == ("s:1", 7, 1.0, False)
    assert (fixture.acknowledged, fixture.router.in_flight) == ([4], 0)
    assert fixture.producer.logs[AUDITS, 0][0][0] == b"key"
    assert fixture.audits.of(0).find([audit_key("q", 4)])[0].offset == 0


async def test_an_audit_that_is_complete_first_waits_for_its_prediction_to_be_in_the_log(fixture):
    asked = fixture.ask(query("q", 3))
    fixture.answer(asked["s:1"])
    await fixture.idle()
    assert (fixture.log(AUDITS), fixture.log(PREDICTIONS)) == ([], [])
    fixture.answer(asked["a:1"])
    await fixture.idle()
    assert (len(fixture.log(PREDICTIONS)), len(fixture.log(AUDITS)), fixture.acknowledged) == (1, 1, [0])
    assert not fixture.auditing._early


async def test_at_the_deadline_an_audit_says_who_is_missing(fixture):
    asked = fixture.ask(query("q", 3))
    fixture.answer(asked["a:1"])
    fixture.carry_out(fixture.router.expire(NOW_S + 1.0))
    await fixture.idle()
    (audit,) = fixture.log(AUDITS)
    assert [(one.model, one.reason, one.served) for one in audit.missing] == [("s", "late", False)]
    assert fixture.acknowledged == [0]


async def test_a_query_read_again_while_its_audit_is_under_way_waits_for_that(fixture):
    one = query("q", 3, offset=4)
    asked = fixture.ask(one)
    fixture.answer(asked["a:1"])
    await fixture.idle()
    fixture.recorder.repeat(one, fixture.known(one))
    await fixture.idle()
    assert (fixture.log(AUDITS), fixture.acknowledged) == ([], [])
    fixture.answer(asked["s:1"])
    await fixture.idle()
    assert (len(fixture.log(AUDITS)), fixture.acknowledged) == (1, [4])
    fixture.recorder.repeat(one, fixture.known(one))
    assert (len(fixture.log(AUDITS)), fixture.acknowledged) == (1, [4, 4])


async def test_a_query_whose_router_died_before_its_audit_gets_one_with_all_missing(fixture):
    one = query("q", 3, offset=4)
    fixture.answer(fixture.ask(one)["a:1"])
    await fixture.idle()
    fixture.router.reset()
    await fixture.recorder.restore({0: 0}, fixture.producer.mark(PREDICTIONS) | fixture.producer.mark(AUDITS))
    fixture.recorder.repeat(one, fixture.known(one))
    fixture.recorder.repeat(one, fixture.known(one))  # under way now
    assert fixture.router.in_flight == 1
    await fixture.idle()
    (audit,) = fixture.log(AUDITS)
    assert [(each.model, each.reason, each.explanation) for each in audit.missing] == [("s", *LOST_AUDIT)]
    assert (audit.models, fixture.acknowledged, fixture.router.in_flight) == ([], [4], 0)


async def test_another_record_of_an_audited_query_is_answered_again_and_owes_no_audit(fixture):
    one = query("q", 3, offset=4)
    fixture.answer(fixture.ask(one)["a:1"])
    await fixture.idle()
    fixture.recorder.repeat(query("q", 3, offset=9), fixture.known(one))
    await fixture.idle()
    assert (len(fixture.log(PREDICTIONS)), fixture.log(AUDITS), fixture.acknowledged) == (2, [], [9])


async def test_somebody_elses_prediction_that_came_first_is_owed_an_audit(fixture):
    """A router that had lost the partition decided on an audit, ours on none: the first prediction counts."""
    theirs = prediction("q", audited=True, query_offset=4, queried_at_ms=round(NOW_S * 1000))
    fixture.producer.append(PREDICTIONS, 0, b"key", codec.predictions.encode(theirs))
    one = query("q", 3, offset=4, models=["a:1"])  # not audited here
    fixture.answer(fixture.ask(one)["a:1"])
    await fixture.idle()
    (audit,) = fixture.log(AUDITS)
    assert (audit.query_id, audit.query_offset, audit.models) == ("q", 4, [])
    assert fixture.acknowledged == [4]


async def test_of_two_audits_the_first_in_the_log_counts_whoever_wrote_it(fixture):
    theirs = Audit(query_id="q", query_offset=4, models=[ModelAnswer(model="x", version="1", propensity=1.0, output=9)])
    fixture.producer.append(AUDITS, 0, b"key", codec.audits.encode(theirs))
    fixture.producer.append(AUDITS, 0, b"key", b"no audit at all")
    one = query("q", 3, offset=4)
    asked = fixture.ask(one)
    fixture.answer(asked["a:1"])
    fixture.answer(asked["s:1"])
    await fixture.idle()
    (first,) = fixture.audits.of(0).find([audit_key("q", 4)])
    assert decode_audit(first) == theirs
    assert (len(fixture.producer.logs[AUDITS, 0]), fixture.acknowledged) == (3, [4])


async def test_what_belongs_to_an_older_generation_is_neither_sent_nor_acknowledged(fixture):
    asked = fixture.ask(query("q", 3, generation=0))
    fixture.answer(asked["a:1"])
    await fixture.idle()
    fixture.generation = 1
    fixture.answer(asked["s:1"])
    await fixture.idle()
    assert (fixture.log(AUDITS), fixture.acknowledged) == ([], [])


@pytest.mark.parametrize("output", ["x" * 1000, 10**400], ids=["large", "unwritable"])
@pytest.mark.parametrize("kind", [codec.JSON, codec.MSGPACK])
def test_an_audit_that_no_record_can_hold_says_so_instead(output, kind):
    router = make_router(application("app", ("a:1",), "exp4", shadows={"s:1": 1.0}, volatile=("s:1",)))
    asked = router.receive([query("q", 3, content_type=kind)], NOW_S)
    (shadow,) = [request for request in asked.requests if request.ref == "s:1"]
    (audit,) = router.gather([outputs_of(shadow, lambda _: output)], NOW_S).audits
    found = codec.audits.decode(encode_audit(audit, most_bytes=500), codec.headers_of(kind))
    assert found.models == []
    assert [(one.model, one.reason, one.served) for one in found.missing] == [("s", "error", False)]
    assert "ask for fewer rows" in found.missing[0].explanation or "cannot be written" in found.missing[0].explanation
