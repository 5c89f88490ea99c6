"""Queries that are decided about together, and which of them are not."""

from dataclasses import replace

import pytest
from builders.query_router import NOW_S, application, block_of, make_router, outputs_of, query

from clipper_stream.query import Failure
from clipper_stream.query.answer import answers_of

SINGLE = application("single", ("a:1", "b:1"), "exp3")


def asked(*ids, **changes):
    return block_of([query(one, float(n), application="single", offset=n, **changes) for n, one in enumerate(ids)])


def answered(effects):
    blocks = [answer for some in effects.block_answers for answer in answers_of(some)]
    return {answer.query.offset for answer in (*effects.answers, *blocks)}


def test_queries_that_choose_one_model_are_decided_about_together():
    router = make_router(SINGLE)
    effects = router.receive([asked("x", "y", "z")], NOW_S)
    assert effects.queries == {"single": 3}
    assert sum(len(request.rows) for request in effects.requests) == router.in_flight == 3
    pieces = [outputs_of(request, int) for request in effects.requests]
    (some, *others) = router.gather(pieces, NOW_S + 0.1).block_answers
    assert sorted(some.indices) == [0, 1, 2]
    assert not others
    assert router.next_deadline_s is None
    assert not router.block_recorded(some)
    assert router.in_flight == 0


def test_queries_that_ask_the_same_models_are_answered_together():
    """One that a model failed on, or whose answer is not sure enough, is looked at by itself."""
    router = make_router(application("single", ("a:1", "b:1"), confidence_threshold=0.6))
    requests = router.receive([asked("sure", "failed", "unsure")], NOW_S).requests
    (first, second) = [outputs_of(one, int) for one in requests]
    assert not answered(router.gather([first], NOW_S + 0.1))
    second.outputs[2] = "another"
    effects = router.gather([replace(second, failures={1: Failure("error", "no")})], NOW_S + 0.2)
    (some,) = effects.block_answers
    assert [(some.indices[n], one.confidence) for n, one in enumerate(some.combined)] == [(0, 1.0)]
    assert {answer.query.query_id: answer.confidence for answer in effects.answers} == {"failed": 0.5, "unsure": 0.5}
    assert router.next_deadline_s is None


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
    router = make_router(app)
    effects = router.receive([asked("x", "y")], NOW_S)
    answers = answered(effects) | answered(router.expire(NOW_S + 100.0))
    assert answers == {0, 1}
    assert not effects.block_answers


def test_those_that_are_too_late_are_refused_together_and_the_others_are_asked():
    router = make_router(SINGLE)
    late = [query(f"late {n}", 0.0, application="single", offset=n, queried_at_s=NOW_S - 3.0) for n in range(2)]
    in_time = query("in time", 0.0, application="single", offset=2)
    effects = router.receive([block_of([late[0], in_time, late[1]])], NOW_S)
    (refused,) = effects.block_answers
    assert [answer.query.offset for answer in answers_of(refused)] == [0, 1]
    assert {answer.failure.reason for answer in answers_of(refused)} == {"arrived_late"}
    assert sum(len(request.rows) for request in effects.requests) == router.admission.waiting == 1
    assert effects.behind == {0: 2}


def test_those_that_nobody_answers_by_their_deadline_get_the_default_together():
    router = make_router(SINGLE)
    answers, silent = router.receive([asked(*"abcdefghijklmnop")], NOW_S).requests
    router.gather([outputs_of(answers, int)], NOW_S + 0.1)
    expired = router.expire(NOW_S + 100.0)
    (some,) = expired.block_answers
    assert expired.answers == []
    assert len(some.indices) == len(silent.rows)
    assert {(one.failure.reason, one.missing[0].ref) for one in answers_of(some)} == {("late", silent.ref)}
    assert router.gather([outputs_of(silent, int)], NOW_S + 101.0).block_answers == []
    assert router.admission.waiting == 0


def test_where_a_row_does_not_fit_it_alone_is_refused():
    router = make_router(SINGLE)
    block = asked("x", "y")
    block.rows[1] = ["text"]
    effects = router.receive([block], NOW_S)
    (answer,) = effects.answers
    assert (answer.query.query_id, answer.failure.reason) == ("y", "invalid_input")
    assert sum(len(request.rows) for request in effects.requests) == 1


def test_an_id_that_comes_twice_is_answered_once():
    router = make_router(SINGLE)
    effects = router.receive([asked("x", "y", "x")], NOW_S)
    assert router.in_flight == 3
    (first, second) = router.gather([outputs_of(one, int) for one in effects.requests], NOW_S + 0.1).answers
    again = [*router.recorded(first.query), *router.recorded(second.query)]
    assert [one.offset for one in again] == [2]


def test_a_query_of_a_block_that_is_read_again_gets_the_same_answer():
    router = make_router(SINGLE)
    effects = router.receive([asked("x", "y")], NOW_S)
    router.receive([query("y", 1.0, application="single", offset=7)], NOW_S)
    (some,) = router.gather([outputs_of(one, int) for one in effects.requests], NOW_S + 0.1).block_answers
    assert [one.offset for one in router.block_recorded(some)] == [7]
    assert router.in_flight == 0


@pytest.mark.parametrize("expired", [False, True])
def test_whoever_shares_an_id_with_a_query_of_a_block_is_told(expired):
    """Its prediction is looked up before it is indexed; also of a query that has left the block."""
    router = make_router(SINGLE, application("app", ("a:1",)))
    router.receive([asked("x", "y")], NOW_S)
    left = router.expire(NOW_S + 2.0).answers if expired else []
    router.receive([query("y", 5.0, queried_at_s=NOW_S + 2.0)], NOW_S + 2.0)
    block = router._queries[query("x", application="single")]
    shared = [answer.pending.shares_id for answer in left if answer.query.query_id == "y"] or [block.shares_id]
    assert shared == [True]
