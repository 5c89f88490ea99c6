"""What the router says and counts; who is asked, and what is answered when, is what `RouterMachine` compares."""

import pytest
from builders.query_router import NOW_S, application, make_router, query
from unit.query.rig import Rig, answer_of

from clipper_stream.models.row_spec import RowSpec
from clipper_stream.query import OutputPiece
from clipper_stream.query.planner import THROUGHPUT_WAIT_S
from clipper_stream.query.requests import FORGET_AFTER_S, MAX_OVERDUE_ROWS

DROPPED = {0: ("late", "dropped")}


def numbered(count, **changes):
    return [query(f"q{number}", number, offset=number, **changes) for number in range(count)]


def test_a_query_is_asked_answered_and_then_cached():
    rig = Rig()
    asked = rig.receive(query("q1", 3))
    assert not asked.answers
    answer = answer_of(rig.gather(asked.requests[0], at_s=0.1))
    assert (answer.outputs, answer.default, answer.confidence) == ([6.0], False, 1.0)
    assert answer.used[0].latency_s == pytest.approx(0.1)
    again = rig.receive(query("q2", 3), at_s=0.2)
    assert again.requests == []
    assert (answer_of(again).outputs, answer_of(again).used[0].cached) == ([6.0], True)


def test_identical_rows_of_one_query_and_of_others_are_asked_for_once():
    rig = Rig()
    asked = rig.receive(query("q1", 3, 3, 4), query("q2", 4))
    assert ([len(request.rows) for request in asked.requests], asked.coalesced) == ([2], 2)
    answers = rig.gather(asked.requests[0]).answers
    assert {answer.query.query_id: answer.outputs for answer in answers} == {"q1": [6.0, 6.0, 8.0], "q2": [8.0]}


def test_a_host_that_drops_a_superseded_row_does_not_make_it_asked_for_a_third_time():
    rig = Rig()
    first = rig.ask(query("q1", 3, deadline_s=0.2))
    rig.receive(query("q2", 3), at_s=0.1)
    (second,) = rig.expire(0.2).requests
    assert rig.gather(first["a:1"], failed=DROPPED, at_s=0.3).requests == []
    assert answer_of(rig.gather(second, at_s=0.4)).query.query_id == "q2"


def test_an_output_of_a_superseded_request_leaves_nothing_behind():
    rig = Rig(application(refs=("a:1", "b:1")), budget_bytes=0)
    first = rig.ask(query("q1", 3, deadline_s=0.2, models=["a"]))
    rig.receive(query("q2", 3, deadline_s=0.5, models=["a", "b"]), at_s=0.1)
    rig.expire(0.2)
    rig.gather(first["a:1"], at_s=0.3)  # fills q2's row, and the key is free
    (third,) = rig.receive(query("q3", 3, models=["a"]), at_s=0.4).requests
    assert rig.expire(0.5).requests == []  # q2's end takes nothing from q3, which has asked itself
    assert answer_of(rig.gather(third, at_s=0.6)).outputs == [6.0]


def test_rows_that_were_never_asked_for_are_ignored():
    rig = Rig()
    (request,) = rig.receive(query("q1", 1)).requests
    never = [OutputPiece(request.frame, -1, [5]), OutputPiece(request.frame, 1, [5, 6]), OutputPiece(99, 0, [5])]
    assert rig.router.gather(never, NOW_S).answers == []
    assert answer_of(rig.router.gather([OutputPiece(request.frame, 0, [5, 6])], NOW_S)).outputs == [5]


def test_outputs_that_cannot_be_combined_give_the_default_with_the_reason():
    rig = Rig(application(refs=("a:1", "b:1"), combiner="mean"))
    requests = rig.ask(query("q1", 1))
    rig.gather(requests["a:1"], lambda _: "cat")
    answer = answer_of(rig.gather(requests["b:1"], lambda _: "dog"))
    assert (answer.outputs, answer.failure.reason) == (["default"], "errors")
    assert "finite numbers" in answer.failure.explanation
    assert [use.outputs for use in answer.used] == [["cat"], ["dog"]]


def test_a_query_is_answered_so_early_that_the_answer_arrives_by_the_deadline():
    rig = Rig()
    rig.router.lead_s = 0.02
    rig.receive(query("q1", 1))
    assert rig.router.next_deadline_s == NOW_S + 0.98
    rig.receive(query("q2", 2, deadline_s=0.05))  # of a short time only a tenth is given up
    assert rig.router.next_deadline_s == pytest.approx(NOW_S + 0.045)
    answer = answer_of(rig.expire(0.045))
    assert (answer.query.query_id, answer.failure.reason) == ("q2", "late")


@pytest.mark.parametrize("count", [1, 2])
def test_a_query_whose_deadline_comes_before_any_model_answers_asks_nobody(count):
    rig = Rig()
    rig.gather(rig.ask(query("q0", 0))["a:1"], at_s=0.3)  # so long the model takes at least

    def refused(offset, age_s, at_s):
        numbers = range(offset, offset + count)
        queries = [query(f"q{n}", n, offset=n, queried_at_s=NOW_S + at_s - age_s) for n in numbers]
        answers = rig.receive(*queries, at_s=at_s).answers
        assert {(answer.failure.reason, *answer.outputs) for answer in answers} <= {("arrived_late", "default")}
        return {answer.failure.explanation for answer in answers}

    why = "read 200 ms, too little for any model, before its deadline, 800 ms after its timestamp; nobody was asked"
    assert len(refused(5, 1.0, 0.5)) == 1  # no time is left at all
    assert refused(10, 0.8, 0.5) == {why}
    assert refused(20, 0.6, 0.5) == set()  # 400 ms are enough
    assert refused(30, 0.8, 2.5) == set()  # what was known is too old


def test_a_row_that_was_not_answered_says_nothing_about_the_time_that_a_model_takes():
    rig = Rig()
    rig.gather(rig.ask(query("q0", 0))["a:1"], at_s=0.3)
    rig.gather(rig.ask(query("q1", 1, offset=1), at_s=0.4)["a:1"], failed=DROPPED, at_s=0.41)
    later = rig.receive(query("q2", 2, offset=2, queried_at_s=NOW_S - 0.3), at_s=0.5)
    assert answer_of(later).failure.reason == "arrived_late"


def test_a_model_that_takes_long_is_asked_while_queries_are_read_at_once():
    rig = Rig()
    rig.gather(rig.ask(query("q0", 0))["a:1"], at_s=0.99)
    assert rig.ask(query("q1", 1, offset=1, queried_at_s=NOW_S + 0.97, deadline_s=0.1), at_s=1.0)


def test_queries_that_have_waited_for_longer_than_they_may_still_wait_are_counted():
    rig = Rig(application(objective_s=1.0), application("free", objective_s=None))
    kinds = enumerate([("app", None), ("free", None), ("free", 50.0), ("free", 0.5)])
    some = [
        query(f"{at_s}", 1, queried_at_s=NOW_S - at_s, partition=partition, application=name, deadline_s=deadline_s)
        for partition, (name, deadline_s) in kinds
        for at_s in (0.4, 0.6, 3.0, 30.0)
    ]
    assert rig.receive(*some).behind == {0: 3, 2: 1, 3: 4}


def test_queries_of_two_applications_with_one_id_are_told_apart_to_their_end():
    rig = Rig(application(), application("other"))
    one, two = query("1", 3), query("1", 5, application="other")
    first, second = rig.ask(one)["a:1"], rig.ask(two)["a:1"]
    assert rig.router.in_flight == 2
    answers = [answer_of(rig.gather(each)) for each in (first, second)]
    assert all(answer.batch.shares_id for answer in answers)  # whichever is recorded first is the decision of the id
    rig.router.recorded(answers[0])
    assert rig.ask(two._replace(offset=9, rows=[[5]])) == {}  # read again
    assert [again.offset for again in rig.router.recorded(answers[1])] == [9]
    assert rig.router.in_flight == 0
    assert not answer_of(rig.receive(query("1", 3, offset=10))).batch.shares_id


def test_a_query_outlives_its_application():
    known = {"app": application()}
    rig = Rig(known=known)
    (request,) = rig.ask(query("q1", 3)).values()
    known.clear()
    assert answer_of(rig.gather(request)).outputs == [6.0]
    assert answer_of(rig.receive(query("q2", 3))).failure.reason == "unknown_application"


def test_requests_that_nobody_answers_are_forgotten_after_a_while():
    rig = Rig()
    (request,) = rig.ask(query("q1", 3)).values()
    assert rig.expire(1.0).forgotten == []
    assert rig.expire(1.0 + FORGET_AFTER_S).forgotten == [request.frame]
    assert rig.expire(2.0 + 2 * FORGET_AFTER_S).forgotten == []


def test_requests_that_nobody_answers_take_bounded_memory():
    rig = Rig()
    packed = [query(f"q{number}", *range(1000 * number, 1000 * number + 1000)) for number in range(20)]
    requests = rig.receive(*packed).requests
    forgotten = rig.expire(1.0).forgotten
    kept = sum(len(request.rows) for request in requests if request.frame not in forgotten)
    assert MAX_OVERDUE_ROWS - 1024 <= kept <= MAX_OVERDUE_ROWS


def test_rows_of_a_packed_query_that_are_cached_are_not_asked_for():
    rig = Rig()
    rig.gather(rig.ask(query("q1", 1, 2))["a:1"])
    asked = rig.receive(query("q2", 2, 3, 1))
    assert (asked.hits, asked.requests[0].rows.tolist()) == ({"a:1": 2}, [[3.0]])
    answer = answer_of(rig.gather(asked.requests[0]))
    assert (answer.outputs, answer.used[0].cached) == ([4.0, 6.0, 2.0], False)


@pytest.mark.parametrize(
    ("dtype", "rows", "asked"),
    [
        ("text", ["a", "b"], ["a", "b"]),
        ("bytes", [b"a", {"base64": "Yg=="}], [b"a", b"b"]),
        ("json", [{"x": 1}, [1, None]], [{"x": 1}, [1, None]]),
    ],
)
def test_rows_that_are_no_numbers_are_asked_for_as_they_are(dtype, rows, asked):
    rig = Rig(application(spec=RowSpec(dtype)))
    (request,) = rig.ask(*(query(f"q{place}", rows=[row]) for place, row in enumerate(rows))).values()
    assert [*request.rows] == asked
    answers = rig.router.gather([OutputPiece(request.frame, 0, ["x", "y"])], NOW_S).answers
    assert [answer.outputs for answer in answers] == [["x"], ["y"]]


@pytest.mark.parametrize(("return_s", "deadline_s"), [(0.1, 0.9), (1e6, 0.75)], ids=["measured", "at most a quarter"])
def test_a_hosts_deadline_leaves_time_for_outputs_to_come_back(return_s, deadline_s):
    rig = Rig()
    rig.router.return_s = return_s
    assert list(rig.ask(query("q1", 3))["a:1"].deadlines_s) == pytest.approx([NOW_S + deadline_s])


# --- audits and trials ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("objective_s", "end_s"), [(1.0, 1.0), (None, THROUGHPUT_WAIT_S)])
def test_an_audit_ends_at_the_deadline_of_its_query_or_after_a_while_without_one(objective_s, end_s):
    rig = Rig(application(shadows={"s:1": 1.0}, objective_s=objective_s))
    rig.gather(rig.ask(query("q", 3))["a:1"], at_s=0.1)
    assert rig.router.next_deadline_s == NOW_S + end_s
    (audit,) = rig.expire(end_s).audits
    assert [(one.ref, one.failure.reason) for one in audit.missing] == [("s:1", "late")]


def test_a_shadow_that_hangs_leaves_room_for_queries():
    rig = Rig(application(shadows={"s:1": 1.0}, objective_s=None), application("other", ("s:1",)))
    queries = numbered(10)
    rig.gather(rig.ask(*queries)["a:1"])
    rig.receive(query("o", 2, application="other", offset=20))  # waits for a row that an audit asked for
    rig.router.admission.most = 8
    ended = rig.router.end_turn(NOW_S + 0.5)
    assert [audit.query.query_id for audit in ended.audits] == [f"q{number}" for number in range(6)]
    assert [len(request.rows) for request in ended.requests] == [1]
    assert rig.router.end_turn(NOW_S + 0.5).audits == []  # they are on their way into the log
    for audit in ended.audits:
        rig.router.audit_recorded(audit)
    assert [rig.router.is_audited(one) for one in queries] == [False] * 6 + [True] * 4
    assert rig.router.end_turn(NOW_S + 0.5).audits == []


def test_a_canary_alone_makes_the_answer_and_what_the_policy_chose_is_asked_besides():
    rig = Rig(application("app", ("a:1", "b:1"), canaries={"c:1": 1.0}))
    asked = rig.ask(query("q", 3))
    assert set(asked) == {"a:1", "b:1", "c:1"}
    answer = answer_of(rig.gather(asked["c:1"], lambda _: 7))
    assert (answer.outputs, answer.confidence, answer.served_propensity) == ([7], 1.0, 1.0)
    assert rig.gather(asked["a:1"]).audits == []
    (audit,) = rig.gather(asked["b:1"]).audits
    assert [(use.ref, use.propensity) for use in audit.used] == [("a:1", 1.0), ("b:1", 1.0)]


def test_without_candidates_a_canary_answers_its_share_and_others_get_no_model():
    rig = Rig(application("app", (), canaries={"c:1": 0.5}, shadows={"s:1": 1.0}))
    effects = rig.receive(*numbered(200))
    assert {answer.failure.reason for answer in effects.answers} == {"no_models"}
    (request,) = effects.requests
    assert (request.ref, len(request.rows) + len(effects.answers)) == ("c:1", 200)
    assert 60 < len(request.rows) < 140


def test_an_audit_that_was_lost_names_whom_the_query_asked_besides():
    app = application("app", ("a:1", "b:1"), "single", audit_ratio=1.0, canaries={"c:1": 0.5}, shadows={"s:1": 0.25})
    for one in numbered(20):
        deciding, deciding_again = Rig(app), make_router(app)
        requests = deciding.ask(one)
        answers = [answer for request in requests.values() for answer in deciding.gather(request).answers]
        served = [use.ref for answer in answers for use in answer.used]
        lost = deciding_again.lost_audit(one, served, NOW_S)
        assert {each.ref for each in lost.missing} == set(requests) - set(served)
        assert {each.failure.reason for each in lost.missing} == {"late"}
        assert deciding_again.is_audited(one)
    gone = make_router().lost_audit(query("q", 3), ["a:1"], NOW_S)
    assert gone.missing == []
