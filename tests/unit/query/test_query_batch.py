"""Queries that are decided about together, each with the answer that it gets by itself."""

import pytest
from builders.query_router import NOW_S, application, outputs_of, query
from unit.query.rig import Rig

from clipper_stream.query.batch import QueryState

SINGLE = application("single", ("a:1", "b:1"), "exp3")


def single(query_id, offset, **changes):
    return query(query_id, float(offset), application="single", offset=offset, **changes)


def several(*ids):
    return [single(one, offset) for offset, one in enumerate(ids)]


def gathered(rig, effects, at_s=0.1):
    """What all the models' outputs make of it."""
    return rig.router.gather([outputs_of(one, int) for one in effects.requests], NOW_S + at_s)


def test_where_a_row_does_not_fit_its_query_alone_is_refused():
    rig, mixed = Rig(SINGLE), several("x", "y", "z")
    mixed[1].rows[0] = ["text"]
    effects = rig.receive(*mixed)
    (answer,) = effects.answers
    assert (answer.query.query_id, answer.failure.reason) == ("y", "invalid_input")
    assert sorted(row[0] for request in effects.requests for row in request.rows) == [0.0, 2.0]


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
