"""Are figures of what flowed those of the seconds that they are said to be of?"""

import pytest
from builders.status import NOW_S, audit, prediction, recent
from hypothesis import given
from hypothesis import strategies as st

from clipper_agents.status.traffic_window import LONGEST_S, TrafficWindow, quantile
from clipper_topics.prediction import MissingRow


def test_a_window_counts_whole_seconds_and_not_the_one_that_goes_on() -> None:
    found = TrafficWindow()
    for ago_s in (11.0, 10.0, 0.5, -0.25):
        found.predicted(prediction(1, "svm:1"), NOW_S - ago_s, NOW_S)
    assert found.window("digits", NOW_S, 10).queries == 2
    assert found.window("digits", NOW_S + 1, 10).queries == 2
    assert found.window("digits", NOW_S, LONGEST_S).queries == 3


def test_a_record_from_the_future_counts_as_now() -> None:
    found = TrafficWindow()
    found.predicted(prediction(1, "svm:1"), NOW_S + 3600, NOW_S)
    assert found.window("digits", NOW_S + 1, 1).queries == 1


def test_seconds_of_which_not_everything_was_read_are_not_counted() -> None:
    found = recent()
    found.since_s = NOW_S - 4.5
    counts = found.window("digits", NOW_S, 60)
    assert (counts.seconds, counts.queries) == (4, 40)


def test_what_no_window_reaches_is_forgotten_and_an_invented_application_with_it() -> None:
    found = recent()
    found.forget(NOW_S + LONGEST_S - 5)
    assert found.window("digits", NOW_S + LONGEST_S - 5, LONGEST_S).queries == 50
    found.forget(NOW_S + LONGEST_S + 1)
    assert not found._seconds
    found.predicted(prediction(1, "svm:1"), NOW_S - LONGEST_S - 1, NOW_S)
    assert not found._seconds


def test_a_default_is_answered_by_nobody_and_still_asked_somebody() -> None:
    counts = recent().window("digits", NOW_S, 10)
    assert counts.defaults == {"late": 3}
    assert counts.served == {"svm:1": 62, "knn:1": 30, "rf:2": 5}
    assert counts.asked == {"svm:1": 65, "knn:1": 30, "rf:2": 5, "nn:3": 100}
    assert counts.feedback == 50


def test_a_default_is_not_answered_by_the_models_that_agreed_too_little() -> None:
    found = TrafficWindow()
    unsure = prediction(1, "svm:1")
    unsure.default, unsure.reason = True, "low_confidence"
    found.predicted(unsure, NOW_S - 1, NOW_S)
    counts = found.window("digits", NOW_S, 1)
    assert (counts.served["svm:1"], counts.asked["svm:1"], counts.defaults) == (0, 1, {"low_confidence": 1})


def test_an_audit_is_no_query_of_its_own_and_says_how_long_a_shadow_takes() -> None:
    found = TrafficWindow()
    found.audited(audit(1), NOW_S - 1, NOW_S)
    counts = found.window("digits", NOW_S, 1)
    assert (counts.queries, counts.served["nn:3"], counts.asked["nn:3"]) == (0, 0, 1)
    assert list(counts.model_latencies_ms["nn:3"]) == [80.0]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_a_quantile_is_the_smallest_value_that_enough_values_do_not_exceed(values: list[float], q: float) -> None:
    found = quantile(q, values)
    assert found in values
    enough = [value for value in values if sum(other <= value for other in values) >= q * len(values)]
    assert found == pytest.approx(min(enough))


def test_what_a_version_did_not_answer_is_counted_by_reason_with_what_it_said_last() -> None:
    found = TrafficWindow()
    for number, why in enumerate(("ValueError: one", "ValueError: two")):
        failed = prediction(number, None)
        failed.missing[0].reason, failed.missing[0].explanation = "error", why
        found.predicted(failed, NOW_S - 2 + number / 2, NOW_S)
    packed = prediction(3, "svm:1")
    packed.models[0].missing_rows = [MissingRow(row=1, reason="late")]
    found.predicted(packed, NOW_S - 1, NOW_S)
    counts = found.window("digits", NOW_S, 10)
    assert (counts.unanswered["svm:1"], counts.asked["svm:1"]) == ({"error": 2, "late": 1}, 3)
    assert counts.said == {"svm:1": "ValueError: two"}
