"""Queries that are decided about together, and which of them are not."""

from dataclasses import replace

import pytest
from builders.query_router import NOW_S, application, block_of, outputs_of, query
from unit.query.rig import Rig

from clipper_stream.query import Failure
from clipper_stream.query.answer import answers_of

SINGLE = application("single", ("a:1", "b:1"), "exp3")
LATE_S = 100.0


def single(query_id, offset, **changes):
    return query(query_id, float(offset), application="single", offset=offset, **changes)


def block(*ids):
    return block_of([single(one, offset) for offset, one in enumerate(ids)])


def gathered(rig, effects, at_s=0.1):
    """What all the models' outputs make of it."""
    return rig.router.gather([outputs_of(one, int) for one in effects.requests], NOW_S + at_s)


def rows_asked(effects):
    return sum(len(request.rows) for request in effects.requests)


def offsets(effects):
    blocks = [answer for some in effects.block_answers for answer in answers_of(some)]
    return {answer.query.offset for answer in (*effects.answers, *blocks)}


def test_queries_that_choose_one_model_are_decided_about_together_also_one_that_is_read_again():
    rig = Rig(SINGLE)
    effects = rig.receive(block("x", "y", "z"))
    assert effects.queries == {"single": 3}
    assert rows_asked(effects) == rig.router.in_flight == 3
    rig.receive(single("y", 7))
    (some,) = gathered(rig, effects).block_answers
    assert sorted(some.indices) == [0, 1, 2]
    assert rig.router.next_deadline_s is None
    assert [one.offset for one in rig.router.block_recorded(some)] == [7]
    assert rig.router.in_flight == 0


def test_queries_that_ask_the_same_models_are_answered_together():
    """One that a model failed on, or whose answer is not sure enough, is looked at by itself."""
    rig = Rig(application("single", ("a:1", "b:1"), confidence_threshold=0.6))
    requests = rig.receive(block("sure", "failed", "unsure")).requests
    (first, second) = [outputs_of(one, int) for one in requests]
    assert not offsets(rig.router.gather([first], NOW_S + 0.1))
    second.outputs[2] = "another"
    effects = rig.router.gather([replace(second, failures={1: Failure("error", "no")})], NOW_S + 0.2)
    (some,) = effects.block_answers
    assert [(some.indices[n], one.confidence) for n, one in enumerate(some.combined)] == [(0, 1.0)]
    assert {answer.query.query_id: answer.confidence for answer in effects.answers} == {"failed": 0.5, "unsure": 0.5}
    assert rig.router.next_deadline_s is None


@pytest.mark.parametrize(
    "app",
    [
        application("single", ("a:1", "b:1"), "exp3", audit_ratio=0.1),
        application("single", ("a:1", "b:1"), "exp3", shadows={"c:1": 0.1}),
        application("single", ("a:1",), "lin_ucb"),
        application("single", ()),
        application("other", ("a:1",), "exp3"),
    ],
    ids=["audits", "a trial", "features", "no model", "unknown"],
)
def test_queries_of_any_other_kind_are_looked_at_one_by_one(app):
    rig = Rig(app)
    effects = rig.receive(block("x", "y"))
    assert offsets(effects) | offsets(rig.expire(LATE_S)) == {0, 1}
    assert not effects.block_answers


def test_those_that_are_too_late_are_refused_together_and_the_others_are_asked():
    rig = Rig(SINGLE)
    late = [single(f"late {offset}", offset, queried_at_s=NOW_S - 3.0) for offset in range(2)]
    effects = rig.receive(block_of([late[0], single("in time", 2), late[1]]))
    (refused,) = effects.block_answers
    assert [(one.query.offset, one.failure.reason) for one in answers_of(refused)] == [
        (0, "arrived_late"), (1, "arrived_late"),
    ]  # fmt: skip
    assert rows_asked(effects) == rig.router.admission.waiting == 1
    assert effects.behind == {0: 2}
    assert (rig.router.in_flight, [*rig.router.block_recorded(refused)], rig.router.in_flight) == (3, [], 1)


def test_those_that_nobody_answers_by_their_deadline_get_the_default_together():
    rig = Rig(SINGLE)
    answers, silent = rig.receive(block(*"abcdefghijklmnop")).requests
    rig.gather(answers, int, at_s=0.1)
    expired = rig.expire(LATE_S)
    (some,) = expired.block_answers
    assert (expired.answers, len(some.indices)) == ([], len(silent.rows))
    assert {(one.failure.reason, one.missing[0].ref) for one in answers_of(some)} == {("late", silent.ref)}
    assert rig.gather(silent, int, at_s=LATE_S + 1).block_answers == []
    assert rig.router.admission.waiting == 0


def test_where_a_row_does_not_fit_it_alone_is_refused():
    rig, mixed = Rig(SINGLE), block("x", "y")
    mixed.rows[1] = ["text"]
    effects = rig.receive(mixed)
    (answer,) = effects.answers
    assert (answer.query.query_id, answer.failure.reason) == ("y", "invalid_input")
    assert rows_asked(effects) == 1


def test_an_id_that_comes_twice_is_answered_once():
    rig = Rig(SINGLE)
    effects = rig.receive(block("x", "y", "x"))
    assert rig.router.in_flight == 3
    answers = gathered(rig, effects).answers
    assert [again.offset for answer in answers for again in rig.router.recorded(answer.query)] == [2]
    assert len(answers) == 2


@pytest.mark.parametrize("expired", [False, True])
def test_whoever_shares_an_id_with_a_query_of_a_block_is_told(expired):
    """Its prediction is looked up before it is indexed; also of a query that has left the block."""
    rig = Rig(SINGLE, application("app", ("a:1",)))
    effects = rig.receive(block("x", "y"))
    left = rig.expire(2.0) if expired else None
    rig.receive(query("y", 5.0, queried_at_s=NOW_S + 2.0), at_s=2.0)
    (some,) = (left or gathered(rig, effects)).block_answers
    assert some.block.shares_id
