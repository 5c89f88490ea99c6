"""An audit follows its prediction into the log, and the query is acknowledged with it, whoever dies in between."""

import pytest
from builders.query_router import application, make_router, outputs_of
from unit.router.rig import AT_S, CATALOGUE, query

from clipper_agents.router.prediction_records import encode_audit
from clipper_stream.query.answer import LOST_AUDIT
from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.logged_records import audit_key, decode_audit
from clipper_topics.prediction import ModelAnswer

APP = application("app", ("a:1",), "exp4", shadows={"s:1": 1.0}, canaries={"c:1": 0.0})


@pytest.fixture
async def rig(make_rig):
    return make_rig(APP)


def audits(rig):
    return [codec.audits.decode(value, headers) for _, value, headers in rig.log(CATALOGUE.audits) if value]


def written(rig):
    """How many predictions and audits there are, and what is acknowledged."""
    return len(rig.predictions()), len(audits(rig)), rig.acknowledged


def one(**changes):
    return query("q", 3, **dict(offset=4, key=b"key") | changes)


async def served(rig, **changes):
    """The model that a query is for has answered, but the shadow has not; the requests."""
    asked = rig.ask(one(**changes))
    rig.answer(asked["a:1"])
    await rig.idle()
    return asked


async def answered(rig, request, model=int):
    rig.answer(request, model)
    await rig.idle()


def repeat(rig, **changes):
    (known,) = rig.decisions.of(0).find(["q"])
    rig.prediction_log.repeat(one(**changes), known)


async def test_the_answer_does_not_wait_for_a_shadow_and_the_offset_does(rig):
    asked = await served(rig)
    (answer,) = rig.predictions()
    assert (answer.output, answer.audited, [use.model for use in answer.models]) == (3, True, ["a"])
    assert (written(rig), rig.router.in_flight) == ((1, 0, []), 1)
    await answered(rig, asked["s:1"], lambda value: 7)
    (audit,) = audits(rig)
    assert (audit.query_id, audit.application, audit.query_offset, audit.missing) == ("q", "app", 4, [])
    (use,) = audit.models
    assert (f"{use.model}:{use.version}", use.output, use.propensity, use.served) == ("s:1", 7, 1.0, False)
    assert (rig.acknowledged, rig.router.in_flight) == ([(0, 4)], 0)
    assert rig.log(CATALOGUE.audits)[0][0] == b"key"
    assert rig.audits.of(0).find([audit_key("q", 4)])[0].offset == 0


async def test_an_audit_that_is_complete_first_waits_for_its_prediction_to_be_in_the_log(rig):
    asked = rig.ask(one())
    await answered(rig, asked["s:1"])
    assert written(rig) == (0, 0, [])
    await answered(rig, asked["a:1"])
    assert written(rig) == (1, 1, [(0, 4)])


async def test_at_the_deadline_an_audit_says_who_is_missing(rig):
    await served(rig)
    rig.carry_out(rig.router.expire(AT_S + 1.0))
    await rig.idle()
    assert [(one.model, one.reason, one.served) for one in audits(rig)[0].missing] == [("s", "late", False)]
    assert written(rig) == (1, 1, [(0, 4)])


async def test_a_query_read_again_while_its_audit_is_under_way_waits_for_that(rig):
    asked = await served(rig)
    repeat(rig)
    await rig.idle()
    assert written(rig) == (1, 0, [])
    await answered(rig, asked["s:1"])
    assert written(rig) == (1, 1, [(0, 4)])
    repeat(rig)
    assert written(rig) == (1, 1, [(0, 4)] * 2)


async def test_a_query_whose_router_died_before_its_audit_gets_one_with_all_missing(rig):
    await served(rig)
    await rig.restore()
    repeat(rig)
    repeat(rig)  # under way now
    assert rig.router.in_flight == 1
    await rig.idle()
    (audit,) = audits(rig)
    assert [(each.model, each.reason, each.explanation) for each in audit.missing] == [("s", *LOST_AUDIT)]
    assert (audit.models, rig.acknowledged, rig.router.in_flight) == ([], [(0, 4)], 0)


async def test_another_record_of_an_audited_query_is_answered_again_and_owes_no_audit(rig):
    await served(rig)
    repeat(rig, offset=9)
    await rig.idle()
    assert written(rig) == (2, 0, [(0, 9)])


async def test_somebody_elses_prediction_that_came_first_is_owed_an_audit(rig):
    """A router that had lost the partition decided on an audit, ours on none: the first prediction counts."""
    rig.predict("q", audited=True, query_offset=4)
    await served(rig, models=["a:1"])  # not audited here
    (audit,) = audits(rig)
    assert (audit.query_id, audit.query_offset, audit.models, rig.acknowledged) == ("q", 4, [], [(0, 4)])


async def test_of_two_audits_the_first_in_the_log_counts_whoever_wrote_it(rig):
    theirs = Audit(query_id="q", query_offset=4, models=[ModelAnswer(model="x", version="1", propensity=1.0, output=9)])
    for value in (codec.audits.encode(theirs), b"no audit at all"):
        rig.producer.append(CATALOGUE.audits, 0, b"key", value)
    asked = await served(rig)
    await answered(rig, asked["s:1"])
    (first,) = rig.audits.of(0).find([audit_key("q", 4)])
    assert decode_audit(first) == theirs
    assert (len(rig.log(CATALOGUE.audits)), rig.acknowledged) == (3, [(0, 4)])


async def test_what_belongs_to_an_older_generation_is_neither_sent_nor_acknowledged(rig):
    asked = await served(rig)
    rig.generation = 1
    await answered(rig, asked["s:1"])
    assert written(rig) == (1, 0, [])


@pytest.mark.parametrize(
    ("output", "kind", "why"),
    [
        ("x" * 1000, codec.JSON, "ask for fewer rows"),
        ("x" * 1000, codec.MSGPACK, "ask for fewer rows"),
        (10**400, codec.MSGPACK, "cannot be written"),
    ],
)
def test_an_audit_that_no_record_can_hold_says_so_instead(output, kind, why):
    router = make_router(application("app", ("a:1",), "exp4", shadows={"s:1": 1.0}, volatile=("s:1",)))
    asked = router.receive([query("q", 3, content_type=kind)], AT_S)
    (shadow,) = [request for request in asked.requests if request.ref == "s:1"]
    (audit,) = router.gather([outputs_of(shadow, lambda _: output)], AT_S).audits
    found = codec.audits.decode(encode_audit(audit, most_bytes=500), codec.headers_of(kind))
    (missing,) = found.missing
    assert (found.models, missing.model, missing.reason, missing.served) == ([], "s", "error", False)
    assert why in missing.explanation
