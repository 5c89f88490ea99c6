"""What the router says and counts; who is asked, and what is answered when, is what `RouterMachine` compares."""

import pytest
from builders.query_blocks import block_of
from builders.query_router import NOW_S, application, make_router, outputs_of, query

from clipper_stream.query import OutputPiece
from clipper_stream.query.answer import answers_of
from clipper_stream.query.in_flight import THROUGHPUT_WAIT_S
from clipper_stream.query.inputs import RowSpec
from clipper_stream.query.request_tracker import FORGET_AFTER_S, MAX_OVERDUE_ROWS


def double(value):
    return 2 * value


def answer_of(effects):
    (answer,) = effects.answers
    return answer


def test_a_query_is_asked_answered_and_then_cached():
    router = make_router(application())
    asked = router.receive([query("q1", 3)], NOW_S)
    assert not asked.answers
    answer = answer_of(router.gather([outputs_of(asked.requests[0], double)], NOW_S + 0.1))
    assert (answer.outputs, answer.default, answer.confidence) == ([6.0], False, 1.0)
    assert answer.used[0].latency_s == pytest.approx(0.1)
    again = router.receive([query("q2", 3)], NOW_S + 0.2)
    assert again.requests == []
    assert (answer_of(again).outputs, answer_of(again).used[0].cached) == ([6.0], True)


def test_identical_rows_of_one_query_and_of_others_are_asked_for_once():
    router = make_router(application())
    asked = router.receive([query("q1", 3, 3, 4), query("q2", 4)], NOW_S)
    assert [len(request.rows) for request in asked.requests] == [2]
    assert asked.coalesced == 2
    answers = router.gather([outputs_of(asked.requests[0], double)], NOW_S).answers
    assert {answer.query.query_id: answer.outputs for answer in answers} == {"q1": [6.0, 6.0, 8.0], "q2": [8.0]}


def test_a_host_that_drops_a_superseded_row_does_not_make_it_asked_for_a_third_time():
    router = make_router(application())
    first = router.receive([query("q1", 3, deadline_s=0.2)], NOW_S)
    router.receive([query("q2", 3)], NOW_S + 0.1)
    (second,) = router.expire(NOW_S + 0.2).requests
    dropped = outputs_of(first.requests[0], double, failed={0: ("late", "dropped")})
    assert router.gather([dropped], NOW_S + 0.3).requests == []
    assert answer_of(router.gather([outputs_of(second, double)], NOW_S + 0.4)).query.query_id == "q2"


def test_an_output_of_a_superseded_request_leaves_nothing_behind():
    router = make_router(application(refs=("a:1", "b:1")), budget_bytes=0)
    first = router.receive([query("q1", 3, deadline_s=0.2, models=["a"])], NOW_S)
    router.receive([query("q2", 3, deadline_s=0.5, models=["a", "b"])], NOW_S + 0.1)
    router.expire(NOW_S + 0.2)
    router.gather([outputs_of(first.requests[0], double)], NOW_S + 0.3)  # fills q2's row, and the key is free
    third = router.receive([query("q3", 3, models=["a"])], NOW_S + 0.4)
    assert len(third.requests) == 1
    assert router.expire(NOW_S + 0.5).requests == []  # q2's end takes nothing from q3, which has asked itself
    assert answer_of(router.gather([outputs_of(third.requests[0], double)], NOW_S + 0.6)).outputs == [6.0]


def test_a_host_that_calls_a_row_late_is_not_asked_again_by_the_same_query():
    router = make_router(application())
    asked = router.receive([query("q1", 3)], NOW_S)
    effects = router.gather([outputs_of(asked.requests[0], double, failed={0: ("late", "dropped")})], NOW_S + 0.1)
    assert effects.requests == []
    assert answer_of(effects).failure.reason == "late"


def test_rows_that_were_never_asked_for_are_ignored():
    router = make_router(application())
    (request,) = router.receive([query("q1", 1)], NOW_S).requests
    assert (
        router.gather([OutputPiece(request.frame, -1, [5]), OutputPiece(request.frame, 1, [5, 6])], NOW_S).answers == []
    )
    assert router.gather([OutputPiece(99, 0, [5])], NOW_S).answers == []
    assert answer_of(router.gather([OutputPiece(request.frame, 0, [5, 6])], NOW_S)).outputs == [5]


def test_outputs_that_cannot_be_combined_give_the_default_with_the_reason():
    router = make_router(application(refs=("a:1", "b:1"), combiner="mean"))
    requests = router.receive([query("q1", 1)], NOW_S).requests
    outputs = {"a:1": ["cat"], "b:1": ["dog"]}
    answer = answer_of(router.gather([OutputPiece(one.frame, 0, outputs[one.ref]) for one in requests], NOW_S))
    assert (answer.outputs, answer.failure.reason) == (["default"], "errors")
    assert "finite numbers" in answer.failure.explanation
    assert [use.outputs for use in answer.used] == [["cat"], ["dog"]]


def test_a_query_is_answered_so_early_that_the_answer_arrives_by_the_deadline():
    router = make_router(application())
    router.lead_s = 0.02
    router.receive([query("q1", 1)], NOW_S)
    assert router.next_deadline_s == NOW_S + 0.98
    router.receive([query("q2", 2, deadline_s=0.05)], NOW_S)  # of a short time only a tenth is given up
    assert router.next_deadline_s == pytest.approx(NOW_S + 0.045)
    answer = answer_of(router.expire(NOW_S + 0.045))
    assert (answer.query.query_id, answer.failure.reason) == ("q2", "late")


def test_a_query_past_its_deadline_asks_nobody():
    router = make_router(application())
    effects = router.receive([query("q1", 1, queried_at_s=NOW_S - 1)], NOW_S)
    assert effects.requests == []
    assert (answer_of(effects).failure.reason, answer_of(effects).outputs) == ("arrived_late", ["default"])


@pytest.mark.parametrize("count", [1, 2], ids=["alone", "in a block"])
def test_a_query_whose_deadline_comes_before_any_model_answers_asks_nobody(count):
    router = make_router(application())
    first = router.receive([query("q0", 0)], NOW_S)
    router.gather([outputs_of(first.requests[0], double)], NOW_S + 0.3)  # so long the model takes at least

    def asked(offset, age_s, now_s):
        numbers = range(offset, offset + count)
        queries = [query(f"q{n}", n, offset=n, queried_at_s=now_s - age_s) for n in numbers]
        effects = router.receive([block_of(queries)] if count > 1 else queries, now_s)
        answers = effects.answers + [answer for some in effects.block_answers for answer in answers_of(some)]
        return {answer.failure.explanation for answer in answers}

    now_s = NOW_S + 0.5
    why = "read 200 ms, too little for any model, before its deadline, 800 ms after its timestamp; nobody was asked"
    assert asked(10, 0.8, now_s) == {why}
    assert asked(20, 0.6, now_s) == set()  # 400 ms are enough
    assert asked(30, 0.8, now_s + 2.0) == set()  # what was known is too old


def test_a_row_that_was_not_answered_says_nothing_about_the_time_that_a_model_takes():
    router = make_router(application())
    for offset, (now_s, failed) in enumerate([(NOW_S, {}), (NOW_S + 0.4, {0: ("late", "dropped")})]):
        (request,) = router.receive([query(f"q{offset}", offset, offset=offset)], now_s).requests
        router.gather([outputs_of(request, double, failed=failed)], now_s + (0.01 if failed else 0.3))
    later = query("q2", 2, offset=2, queried_at_s=NOW_S - 0.3)
    assert answer_of(router.receive([later], NOW_S + 0.5)).failure.reason == "arrived_late"


def test_a_model_that_takes_long_is_asked_while_queries_are_read_at_once():
    router = make_router(application())
    first = router.receive([query("q0", 0)], NOW_S)
    router.gather([outputs_of(first.requests[0], double)], NOW_S + 0.99)
    later = query("q1", 1, offset=1, queried_at_s=NOW_S + 0.97, deadline_s=0.1)
    assert router.receive([later], NOW_S + 1.0).requests != []


def test_queries_that_have_waited_for_longer_than_they_may_still_wait_are_counted():
    router = make_router(application(objective_s=1.0), application("free", objective_s=None))
    waited_s = {"a": 0.4, "b": 0.6, "c": 3.0, "d": 30.0}
    some = [
        query(
            name, 1, queried_at_s=NOW_S - waited, partition=partition, application=to, deadline_s=bound, offset=number
        )
        for number, (name, waited) in enumerate(waited_s.items())
        for partition, to, bound in ((0, "app", None), (1, "free", None), (2, "free", 50.0), (3, "free", 0.5))
    ]
    assert router.receive(some, NOW_S).behind == {0: 3, 2: 1, 3: 4}


def test_the_same_id_of_another_application_is_another_query():
    router = make_router(application(), application("other"))
    assert router.receive([query("1", 3)], NOW_S).requests
    assert router.receive([query("1", 5, application="other")], NOW_S).requests
    assert router.in_flight == 2


def test_queries_of_two_applications_with_one_id_are_told_apart_to_their_end():
    router = make_router(application(), application("other"))
    one, two = query("1", 3), query("1", 5, application="other")
    first, second = router.receive([one], NOW_S), router.receive([two], NOW_S)
    answers = [answer_of(router.gather([outputs_of(each.requests[0], double)], NOW_S)) for each in (first, second)]
    assert all(answer.pending.shares_id for answer in answers)  # whichever is recorded first is the decision of the id
    router.recorded(one)
    assert router.receive([query("1", 5, application="other", offset=9)], NOW_S).requests == []  # read again
    assert [again.offset for again in router.recorded(query("1", 5, application="other"))] == [9]
    assert router.in_flight == 0
    (pending,) = [answer.pending for answer in router.receive([query("1", 3, offset=10)], NOW_S).answers]
    assert not pending.shares_id


def test_a_query_outlives_its_application():
    known = {"app": application()}
    router = make_router()
    router._application = known.get
    (request,) = router.receive([query("q1", 3)], NOW_S).requests
    del known["app"]
    assert answer_of(router.gather([outputs_of(request, double)], NOW_S)).outputs == [6.0]
    assert answer_of(router.receive([query("q2", 3)], NOW_S)).failure.reason == "unknown_application"


def test_requests_that_nobody_answers_are_forgotten_after_a_while():
    router = make_router(application())
    (request,) = router.receive([query("q1", 3)], NOW_S).requests
    assert router.expire(NOW_S + 1.0).forgotten == []
    assert router.expire(NOW_S + 1.0 + FORGET_AFTER_S).forgotten == [request.frame]
    assert len(router._tracker) == 0


def test_requests_that_nobody_answers_take_bounded_memory():
    router = make_router(application())
    packed = [query(f"q{number}", *range(1000 * number, 1000 * number + 1000)) for number in range(20)]
    requests = router.receive(packed, NOW_S).requests
    forgotten = router.expire(NOW_S + 1.0).forgotten
    kept = sum(len(request.rows) for request in requests if request.frame not in forgotten)
    assert MAX_OVERDUE_ROWS - 1024 <= kept <= MAX_OVERDUE_ROWS


def test_one_row_that_fails_costs_a_packed_query_only_that_row_of_that_model():
    router = make_router(application(refs=("a:1", "b:1")))
    requests = {request.ref: request for request in router.receive([query("q1", 1, 2)], NOW_S).requests}
    pieces = [
        outputs_of(requests["a:1"], double),
        outputs_of(requests["b:1"], double, failed={1: ("error", "bad row")}),
    ]
    answer = answer_of(router.gather(pieces, NOW_S))
    assert (answer.outputs, answer.confidence, answer.default) == ([2.0, 4.0], 0.5, False)
    assert [use.outputs for use in answer.used] == [[2.0, 4.0], [2.0, None]]
    assert answer.used[1].failures == {1: ("error", "bad row")}
    assert answer.missing == ()


def test_only_the_rows_of_a_packed_query_that_nobody_answered_get_the_default():
    router = make_router(application())
    (request,) = router.receive([query("q1", 1, 2, 3)], NOW_S).requests
    router.gather([outputs_of(request, double, rows=(0, 1)), outputs_of(request, double, rows=(2, 3))], NOW_S)
    answer = answer_of(router.expire(NOW_S + 1.0))
    assert (answer.outputs, answer.failure.reason, answer.confidence) == ([2.0, "default", 6.0], "late", 0.0)
    assert "for rows [1]" in answer.failure.explanation
    (use,) = answer.used
    assert (use.outputs, [*use.failures]) == ([2.0, None, 6.0], [1])


def test_rows_of_a_packed_query_that_are_cached_are_not_asked_for():
    router = make_router(application())
    (request,) = router.receive([query("q1", 1, 2)], NOW_S).requests
    router.gather([outputs_of(request, double)], NOW_S)
    asked = router.receive([query("q2", 2, 3, 1)], NOW_S)
    assert (asked.hits, asked.requests[0].rows.tolist()) == ({"a:1": 2}, [[3.0]])
    answer = answer_of(router.gather([outputs_of(asked.requests[0], double)], NOW_S))
    assert (answer.outputs, answer.used[0].cached) == ([4.0, 6.0, 2.0], False)


@pytest.mark.parametrize(
    ("dtype", "rows", "key_types"),
    [("text", ["a", "b"], str), ("bytes", [b"a", {"base64": "Yg=="}], bytes), ("json", [{"x": 1}, [1, None]], object)],
)
def test_rows_that_are_no_numbers_are_asked_for_as_they_are(dtype, rows, key_types):
    router = make_router(application(spec=RowSpec(dtype)))
    queries = [query(f"q{place}", row) for place, row in enumerate(rows)]
    for one, row in zip(queries, rows, strict=True):
        one.rows[0] = row
    asked = router.receive(queries, NOW_S)
    (request,) = asked.requests
    assert all(isinstance(row, key_types) for row in request.rows)
    answers = router.gather([OutputPiece(request.frame, 0, ["x", "y"])], NOW_S).answers
    assert [answer.outputs for answer in answers] == [["x"], ["y"]]


def test_invalid_inputs_cost_only_their_own_query():
    router = make_router(application())
    effects = router.receive([query("q1", 3), query("q2", "three"), query("q3", 1, None)], NOW_S)
    assert {answer.query.query_id: answer.failure.reason for answer in effects.answers} == dict.fromkeys(
        ["q2", "q3"], "invalid_input"
    )
    assert len(effects.requests[0].rows) == 1


def test_a_hosts_deadline_leaves_time_for_outputs_to_come_back():
    router = make_router(application())
    router.return_s = 0.1
    (request,) = router.receive([query("q1", 3)], NOW_S).requests
    assert list(request.deadlines_s) == pytest.approx([NOW_S + 0.9])


def test_a_wrong_measurement_of_the_way_back_takes_at_most_a_quarter():
    router = make_router(application())
    router.return_s = 1e6
    (request,) = router.receive([query("q1", 3)], NOW_S).requests
    assert list(request.deadlines_s) == pytest.approx([NOW_S + 0.75])


# --- audits and trials ------------------------------------------------------------------------------------------------
def by_ref(effects):
    return {request.ref: request for request in effects.requests}


def test_an_audit_ends_at_the_deadline_of_its_query_or_after_a_while_without_one():
    for objective_s, end_s in ((1.0, 1.0), (None, THROUGHPUT_WAIT_S)):
        router = make_router(application(shadows={"s:1": 1.0}, objective_s=objective_s))
        asked = by_ref(router.receive([query("q", 3)], NOW_S))
        router.gather([outputs_of(asked["a:1"], double)], NOW_S + 0.1)
        assert router.next_deadline_s == NOW_S + end_s
        (audit,) = router.expire(NOW_S + end_s).audits
        assert [(one.ref, one.failure.reason) for one in audit.missing] == [("s:1", "late")]


def test_a_shadow_that_hangs_leaves_room_for_queries():
    router = make_router(application(shadows={"s:1": 1.0}, objective_s=None), application("other", ("s:1",)))
    asked = by_ref(router.receive([query(f"q{number}", number, offset=number) for number in range(10)], NOW_S))
    router.gather([outputs_of(asked["a:1"], double)], NOW_S)
    router.receive([query("o", 2, application="other", offset=20)], NOW_S)  # waits for a row that an audit asked for
    assert len(router._audits) == 10
    router.admission.most = 8
    ended = router.end_audits(NOW_S + 0.5)
    assert [audit.query.query_id for audit in ended.audits] == [f"q{number}" for number in range(6)]
    assert [len(request.rows) for request in ended.requests] == [1]
    assert router.end_audits(NOW_S + 0.5).audits == []  # they are on their way into the log
    for audit in ended.audits:
        router.audit_recorded(audit.query)
    assert (len(router._audits), router.end_audits(NOW_S + 0.5).audits) == (4, [])


def test_a_canary_alone_makes_the_answer_and_what_the_policy_chose_is_asked_besides():
    router = make_router(application("app", ("a:1", "b:1"), canaries={"c:1": 1.0}))
    asked = by_ref(router.receive([query("q", 3)], NOW_S))
    assert set(asked) == {"a:1", "b:1", "c:1"}
    answered = router.gather([outputs_of(asked["c:1"], lambda _: 7)], NOW_S)
    answer = answer_of(answered)
    assert (answer.outputs, answer.confidence, answer.served_propensity) == ([7], 1.0, 1.0)
    assert router.gather([outputs_of(asked["a:1"], double)], NOW_S).audits == []
    (audit,) = router.gather([outputs_of(asked["b:1"], double)], NOW_S).audits
    assert [(use.ref, use.propensity) for use in audit.used] == [("a:1", 1.0), ("b:1", 1.0)]


def test_a_canary_that_fails_gives_the_default_and_says_who_failed():
    router = make_router(application(canaries={"c:1": 1.0}))
    asked = by_ref(router.receive([query("q", 3)], NOW_S))
    failed = outputs_of(asked["c:1"], double, failed={0: ("error", "broken")})
    answer = answer_of(router.gather([failed], NOW_S))
    assert (answer.outputs, answer.failure) == (["default"], ("errors", "c:1 failed: broken"))


def test_without_candidates_a_canary_answers_its_share_and_others_get_no_model():
    router = make_router(application("app", (), canaries={"c:1": 0.5}, shadows={"s:1": 1.0}))
    effects = router.receive([query(f"q{number}", number, offset=number) for number in range(200)], NOW_S)
    assert {answer.failure.reason for answer in effects.answers} == {"no_models"}
    (request,) = effects.requests
    assert request.ref == "c:1"
    assert len(request.rows) + len(effects.answers) == 200
    assert 60 < len(request.rows) < 140


def test_a_version_on_trial_cannot_be_named_by_a_query():
    router = make_router(application(shadows={"s:1": 1.0}))
    assert answer_of(router.receive([query("q", 3, models=["s:1"])], NOW_S)).failure.reason == "unknown_model"


def test_an_audit_that_was_lost_names_whom_the_query_asked_besides():
    app = application("app", ("a:1", "b:1"), "single", audit_ratio=1.0, canaries={"c:1": 0.5}, shadows={"s:1": 0.25})
    for number in range(20):
        one = query(f"q{number}", 3, offset=number)
        (deciding, deciding_again) = (make_router(app), make_router(app))
        requests = deciding.receive([one], NOW_S).requests
        (served,) = deciding._queries[one].decision.models
        lost = deciding_again.lost_audit(one, [served], NOW_S)
        assert {each.ref for each in lost.missing} == {request.ref for request in requests} - {served}
        assert {each.failure.reason for each in lost.missing} == {"late"}
        assert deciding_again.is_audited(one)
    gone = make_router().lost_audit(query("q", 3), ["a:1"], NOW_S)
    assert (gone.missing, gone.application) == ((), None)
