"""Queries that are decided about together, each with the answer that it gets by itself."""

from dataclasses import replace

import pytest
from builders.query_router import NOW_S, application, outputs_of, query
from unit.query.rig import Rig

from clipper_stream.query import Failure
from clipper_stream.query.lifecycle import QueryState

SINGLE = application("single", ("a:1", "b:1"), "exp3")
LATE_S = 100.0


def single(query_id, offset, **changes):
    return query(query_id, float(offset), application="single", offset=offset, **changes)


def several(*ids):
    return [single(one, offset) for offset, one in enumerate(ids)]


def gathered(rig, effects, at_s=0.1):
    """What all the models' outputs make of it."""
    return rig.router.gather([outputs_of(one, int) for one in effects.requests], NOW_S + at_s)


def rows_asked(effects):
    return sum(len(request.rows) for request in effects.requests)


def test_a_query_that_is_read_again_waits_for_the_answer_of_its_batch():
    rig = Rig(SINGLE)
    effects = rig.receive(*several("x", "y", "z"))
    assert effects.queries == {"single": 3}
    assert rows_asked(effects) == rig.router.in_flight == 3
    rig.receive(single("y", 7))
    answers = gathered(rig, effects).answers
    assert sorted(one.query.query_id for one in answers) == ["x", "y", "z"]
    assert rig.router.next_deadline_s is None
    assert [again.offset for one in answers for again in rig.router.recorded(one)] == [7]
    assert rig.router.in_flight == 0


def test_one_that_a_model_failed_on_or_whose_answer_is_not_sure_keeps_no_other_waiting():
    rig = Rig(application("single", ("a:1", "b:1"), confidence_threshold=0.6))
    requests = rig.receive(*several("sure", "failed", "unsure")).requests
    (first, second) = [outputs_of(one, int) for one in requests]
    assert not rig.router.gather([first], NOW_S + 0.1).answers
    second.outputs[2] = "another"
    answers = rig.router.gather([replace(second, failures={1: Failure("error", "no")})], NOW_S + 0.2).answers
    assert {one.query.query_id: one.confidence for one in answers} == {"sure": 1.0, "failed": 0.5, "unsure": 0.5}
    assert {one.query.query_id for one in answers if one.default} == {"failed", "unsure"}
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
def test_queries_of_every_kind_of_application_are_answered_together(app):
    rig = Rig(app)
    effects = rig.receive(*several("x", "y"))
    assert {one.query.offset for one in (*effects.answers, *rig.expire(LATE_S).answers)} == {0, 1}


def test_those_that_are_too_late_are_refused_and_the_others_are_asked():
    rig = Rig(SINGLE)
    late = [single(f"late {offset}", offset, queried_at_s=NOW_S - 3.0) for offset in range(2)]
    effects = rig.receive(late[0], single("in time", 2), late[1])
    assert [(one.query.offset, one.failure.reason) for one in effects.answers] == [
        (0, "arrived_late"), (1, "arrived_late"),
    ]  # fmt: skip
    assert rows_asked(effects) == rig.router.admission.waiting == 1
    assert effects.behind == {0: 2}
    again = [each for one in effects.answers for each in rig.router.recorded(one)]
    assert (again, rig.router.in_flight) == ([], 1)


def test_those_that_nobody_answers_by_their_deadline_get_the_default():
    rig = Rig(SINGLE)
    answers, silent = rig.receive(*several(*"abcdefghijklmnop")).requests
    rig.gather(answers, int, at_s=0.1)
    expired = rig.expire(LATE_S).answers
    assert len(expired) == len(silent.rows)
    assert {(one.failure.reason, one.missing[0].ref) for one in expired} == {("late", silent.ref)}
    assert rig.gather(silent, int, at_s=LATE_S + 1).answers == []
    assert rig.router.admission.waiting == 0


def test_where_a_row_does_not_fit_its_query_alone_is_refused():
    rig, mixed = Rig(SINGLE), several("x", "y", "z")
    mixed[1].rows[0] = ["text"]
    effects = rig.receive(*mixed)
    (answer,) = effects.answers
    assert (answer.query.query_id, answer.failure.reason) == ("y", "invalid_input")
    assert sorted(row[0] for request in effects.requests for row in request.rows) == [0.0, 2.0]


def test_an_id_that_comes_twice_is_answered_once():
    rig = Rig(SINGLE)
    effects = rig.receive(*several("x", "y", "x"))
    assert rig.router.in_flight == 3
    answers = gathered(rig, effects).answers
    assert [again.offset for one in answers for again in rig.router.recorded(one)] == [2]
    assert len(answers) == 2


@pytest.mark.parametrize("expired", [False, True])
def test_whoever_shares_an_id_with_a_query_of_a_batch_is_told(expired):
    """Its prediction is looked up before it is indexed; also of a query that is answered, and not recorded."""
    rig = Rig(SINGLE, application("app", ("a:1",)))
    effects = rig.receive(*several("x", "y"))
    ended = rig.expire(2.0) if expired else None
    rig.receive(query("y", 5.0, queried_at_s=NOW_S + 2.0), at_s=2.0)
    for answer in (ended or gathered(rig, effects)).answers:
        assert answer.batch.shares_id


def test_the_rows_of_queries_that_ask_nobody_are_forgotten():
    """Thousands of queries that wait for the log would hold a Python object for each of their numbers."""
    rig = Rig(SINGLE)
    late = [single("late", 1, queried_at_s=NOW_S - 3.0)]
    unknown = [query("q", 1, application="unknown")]
    batches = [one.batch for asked in (late, unknown) for one in rig.receive(*asked).answers]
    assert [batch.rows for batch in batches] == [[], []]


def test_each_query_of_a_batch_has_a_status_of_its_own():
    rig = Rig(SINGLE)
    effects = rig.receive(single("late", 0, queried_at_s=NOW_S - 3.0), *several("x", "y")[1:])
    batch = effects.answers[0].batch
    assert [*batch.states] == [QueryState.DEFAULTED, QueryState.WAITING]
    (answer,) = gathered(rig, effects).answers
    assert [*batch.states] == [QueryState.DEFAULTED, QueryState.ANSWERED]
    rig.router.recorded(answer)
    assert [*batch.states] == [QueryState.DEFAULTED, QueryState.RECORDED]
