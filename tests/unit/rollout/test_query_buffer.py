"""What is put together about one query, and what is forgotten."""

import pytest
from builders.rollout_logs import answered, audit_of, decided

from clipper_agents.rollout.query_buffer import QueryBuffer
from clipper_topics.feedback import Feedback


@pytest.fixture
def join():
    return QueryBuffer(horizon_s=1.0, most_queries=3)


def truth(query_id="0-1", **fields):
    return Feedback(query_id=query_id, label=1, **fields)


A, B = decided("0-1", answered("a:1", 1)), decided("0-1", answered("b:1", 2))
PREDICTION = decided("0-1", answered("a:1", 1), audited=True)
AUDIT = audit_of("0-1", answered("b:1", 1))


def test_a_query_is_complete_with_prediction_audit_and_feedback(join):
    assert join.prediction(0, PREDICTION, 10) is None
    assert join.audit(0, AUDIT, 20) is None
    joined = join.feedback(0, truth(), 30)
    assert (joined.prediction, joined.audit, joined.feedback) == (PREDICTION, AUDIT, truth())


def test_an_audit_may_come_before_its_prediction_or_after_the_feedback(join):
    join.audit(0, AUDIT, 5)
    join.prediction(0, PREDICTION, 10)
    assert join.feedback(0, truth(), 30) is not None
    other = QueryBuffer(1.0, 3)
    other.prediction(0, PREDICTION, 10)
    assert other.feedback(0, truth(), 20) is None
    assert other.audit(0, AUDIT, 30).feedback == truth()


def test_the_first_prediction_and_the_first_feedback_count(join):
    join.prediction(0, A, 10)
    join.prediction(0, B, 11)
    joined = join.feedback(0, truth(), 20)
    assert joined.prediction.models[0].model == "a"
    join.close(joined)
    assert join.feedback(0, truth(), 21) is None
    join.prediction(0, B, 22)
    join.audit(0, AUDIT, 22)
    assert join.feedback(0, truth(), 23) is None
    assert (joined.prediction, joined.audit) == (None, None), "nothing of it is needed any more"


def test_without_an_audit_nobody_waits_for_one_and_feedback_that_cannot_be_used_leaves_its_place_to_the_next(join):
    join.prediction(0, A, 10)
    join.reopen(join.feedback(0, truth(), 20))
    assert join.feedback(0, truth(), 21) is not None


def test_feedback_about_another_application_context_partition_or_query_is_left_out(join):
    join.prediction(0, A, 10)
    others = ((0, truth(application="other")), (0, truth(context="other")), (1, truth()), (0, truth("0-2")))
    assert [join.feedback(partition, one, 20) for partition, one in others] == [None] * 4
    assert join.feedback(0, truth(application="digits"), 20) is not None


@pytest.mark.parametrize("named", [True, False])
def test_two_applications_under_one_id_have_two_queries(join, named):
    join.prediction(0, A, 10)
    join.prediction(0, decided("0-1", answered("b:1", 2), application="other"), 11)
    join.audit(0, audit_of("0-1", answered("c:1", 1), application="other"), 12)
    mine = join.feedback(0, truth(application="digits") if named else truth(), 20)
    others = join.feedback(0, truth(application="other"), 21)
    assert [one.prediction.models[0].model for one in (mine, others)] == ["a", "b"]
    assert (mine.audit, others.audit.application) == (None, "other")


def test_feedback_without_an_application_is_about_the_first_decision_followed_or_not(join):
    join.other(0, "0-1", 9)
    join.prediction(0, A, 10)
    join.other(0, "0-1", 11)
    assert join.feedback(0, truth(), 20) is None
    assert join.feedback(0, truth(application="digits"), 21) is not None
    join.forget(1010)
    join.prediction(0, A, 1011)
    assert join.feedback(0, truth(), 1012) is not None, "behind the horizon an id may be used again"


def test_behind_the_horizon_a_query_is_forgotten_and_its_waiting_feedback_counted(join):
    join.prediction(0, PREDICTION, 10)
    join.feedback(0, truth(), 20)
    join.prediction(0, decided("0-2", answered("a:1", 1)), 30)
    assert join.feedback(0, truth("0-2"), 1031) is None
    assert len(join) == 0
    assert join.dropped == {"no_audit": 1}


def test_of_too_many_queries_the_oldest_is_dropped_and_counted(join):
    for number in range(5):
        join.prediction(0, decided(f"0-{number}", answered("a:1", 1)), number)
    assert len(join) == 3
    assert join.dropped == {"full": 2}
    assert join.feedback(0, truth("0-1"), 9) is None
    assert join.feedback(0, truth("0-2"), 9) is not None
