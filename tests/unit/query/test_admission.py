"""One application whose models hang takes a part of the room, and no more than its share once others need it."""

import pytest
from builders.query_router import NOW_S, application, make_router, outputs_of, query

from clipper_stream.query.planner import NEAR_S

MOST = 16


def numbered(name, count, first=0, **changes):
    numbers = range(first, first + count)
    return [query(f"{name}{number}", number, application=name, offset=number, **changes) for number in numbers]


def ask(router, *which, **changes):
    found = router.receive(numbered(*which, **changes), NOW_S)
    rows = sum(len(request.rows) for request in found.requests)
    return rows, [answer.failure.reason for answer in found.answers], [one.offset for one, _ in found.deferred]


def make(objective_s=1.0, *, shared=True):
    hangs, well = application("hangs", ("h:1",), objective_s=objective_s), application("well", ("w:1",))
    router = make_router(hangs, well, most_waiting=MOST)
    router.admission.shared = shared
    return router


def test_an_application_that_hangs_leaves_room_for_the_others():
    router = make()
    assert ask(router, "hangs", 20) == (12, ["overloaded"] * 8, [])
    assert ask(router, "well", 8) == (8, [], [])
    assert not router.is_full
    assert ask(router, "hangs", 1, 20) == (0, ["overloaded"], [])


def test_applications_of_which_every_query_was_refused_take_no_share():
    """Each did until the next rebalance: of a room of 50 for another, 12 were left after six."""
    router = make_router(*(application(f"late {number}") for number in range(6)), application("well"), most_waiting=100)
    router.admission.shared = True
    for number in range(6):
        (answer,) = router.receive([query("q", 1, application=f"late {number}", deadline_s=-9.0)], NOW_S).answers
        assert answer.failure.reason == "arrived_late"
    router.admission.enter("hangs", 75)
    assert router.admission.room("well") == 50


def test_alone_it_may_take_all_there_is_and_then_reading_stops():
    router = make(shared=False)
    assert ask(router, "hangs", 20) == (20, [], [])
    assert router.is_full


@pytest.mark.parametrize("objective_s", [None, 3600.0])
def test_with_time_left_they_are_read_again_and_without_they_are_refused(objective_s):
    router = make(objective_s)
    assert ask(router, "hangs", 20) == (12, [], [*range(12, 20)])
    assert ask(router, "hangs", 1, 20, deadline_s=1.0) == (0, ["overloaded"], [])
    assert router.in_flight == 13, "those that are deferred are not in flight"
    assert not router.is_full
    router.admission.deferred = 1_000_000
    assert router.is_full


def test_a_deferred_query_is_read_again_while_it_can_still_be_answered():
    router = make(3600.0)
    ask(router, "hangs", 12)
    late = router.receive([query("q", 1, application="hangs", deadline_s=30.0)], NOW_S)
    assert [until_s for _, until_s in late.deferred] == [NOW_S + 30 - NEAR_S]
    at_s = NOW_S + 30 - NEAR_S
    (answer,) = router.receive([query("q", 1, application="hangs", deadline_s=30.0)], at_s).answers
    assert answer.failure.reason == "overloaded"


def test_a_query_that_is_deferred_takes_those_of_the_same_id_along():
    router = make(objective_s=None)
    ask(router, "hangs", 12)
    twice = [query("same", 1, application="hangs", offset=offset) for offset in (50, 51)]
    assert [one.offset for one, _ in router.receive(twice, NOW_S).deferred] == [50, 51]
    assert router.in_flight == 12


def test_what_is_late_or_invalid_is_told_as_such_also_without_room():
    router = make()
    ask(router, "hangs", 12)
    assert ask(router, "hangs", 1, 30, invalid="no number") == (0, ["invalid_input"], [])
    assert ask(router, "hangs", 1, 31, queried_at_s=NOW_S - 3) == (0, ["arrived_late"], [])


def test_there_is_room_again_once_outputs_arrive_deadlines_pass_or_all_is_forgotten():
    router = make()
    (request,) = router.receive(numbered("hangs", 12), NOW_S).requests
    router.gather([outputs_of(request, int, rows=(0, 4))], NOW_S)
    assert (router.admission.room("hangs"), router.admission.waiting) == (4, 8)
    again = router.receive([query(f"r{number}", number, application="hangs") for number in range(4)], NOW_S)
    assert (len(again.answers), router.admission.waiting) == (4, 8), "rows from the cache take no room"
    router.expire(NOW_S + 1)
    assert (router.admission.room("hangs"), router.admission.waiting) == (12, 0)
    ask(router, "hangs", 12, 100)
    router.reset()
    assert router.admission.room("hangs") == 12
