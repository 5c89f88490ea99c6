"""Are figures of what flowed those of the seconds that they are said to be of?"""

import pytest
from builders.status import NOW_S, audit, prediction, recent
from hypothesis import given
from hypothesis import strategies as st

from clipper_agents.status.traffic_window import LONGEST_S, TrafficCounts, TrafficWindow, quantile
from clipper_topics.prediction import MissingRow, Prediction


def counted(*predictions: Prediction, weight: float = 1) -> TrafficWindow:
    """Each of the last second."""
    found = TrafficWindow()
    for one in predictions:
        found.predicted(one, NOW_S - 1, NOW_S, weight)
    return found


def last(found: TrafficWindow, seconds: int = 1) -> TrafficCounts:
    return found.window("digits", NOW_S, seconds)


def test_a_window_counts_whole_seconds_and_not_the_one_that_goes_on() -> None:
    found = TrafficWindow()
    for ago_s in (11.0, 10.0, 0.5, -0.25):
        found.predicted(prediction(1, "svm:1"), NOW_S - ago_s, NOW_S)
    assert last(found, 10).queries == 2
    assert found.window("digits", NOW_S + 1, 10).queries == 2
    assert last(found, LONGEST_S).queries == 3


def test_a_record_from_the_future_counts_as_now() -> None:
    found = TrafficWindow()
    found.predicted(prediction(1, "svm:1"), NOW_S + 3600, NOW_S)
    assert found.window("digits", NOW_S + 1, 1).queries == 1


@pytest.mark.parametrize(
    ("bounds", "asked_s", "seconds", "queries"),
    [({"since_s": NOW_S - 4.5}, 60, 4, 40), ({"until_s": NOW_S - 1.5}, 10, 10, 80)],
)
def test_seconds_of_which_not_everything_was_read_are_not_counted(bounds, asked_s, seconds, queries) -> None:
    found = recent()
    for name, at_s in bounds.items():
        setattr(found, name, at_s)
    counts = last(found, asked_s)
    assert (counts.seconds, counts.queries) == (seconds, queries)


def test_what_no_window_reaches_is_forgotten_and_an_invented_application_with_it() -> None:
    found = recent()
    found.forget(NOW_S + LONGEST_S - 5)
    assert found.window("digits", NOW_S + LONGEST_S - 5, LONGEST_S).queries == 50
    found.forget(NOW_S + LONGEST_S + 1)
    assert not found._seconds
    found.predicted(prediction(1, "svm:1"), NOW_S - LONGEST_S - 1, NOW_S)
    assert not found._seconds


def test_a_default_is_answered_by_nobody_and_still_asked_somebody() -> None:
    counts = last(recent(), 10)
    assert (counts.defaults, counts.feedback, counts.sampled) == ({"late": 3}, 50, False)
    found = {ref: (one.asked, one.answered, one.served) for ref, one in counts.versions.items()}
    assert found == {"svm:1": (65, 62, 62), "knn:1": (30, 30, 30), "rf:2": (5, 5, 5), "nn:3": (100, 100, 0)}
    assert (counts.queries, {*counts.of("nn:3").latencies_ms}) == (100, {80.0}), "an audit is no query of its own"
    unsure = prediction(1, "svm:1")
    unsure.default, unsure.reason = True, "low_confidence"
    counts = last(counted(unsure))
    svm = counts.of("svm:1")
    assert (svm.served, svm.asked, counts.defaults) == (0, 1, {"low_confidence": 1}), "it agreed too little"


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
    counts = last(found, 10)
    svm = counts.of("svm:1")
    assert (svm.unanswered, svm.asked, svm.answered) == ({"error": 2, "late": 1}, 3, 1)
    assert svm.said == "ValueError: two"
    assert last(found).of("svm:1").said == "", "it failed before"


def test_an_answer_from_a_cache_is_counted_and_took_no_time_of_the_model() -> None:
    answers = [prediction(1, "svm:1") for _ in range(3)]
    answers[0].models[0].cached = answers[2].models[0].cached = True
    svm = last(counted(*answers)).of("svm:1")
    assert (svm.cached, svm.answered, len(svm.latencies_ms)) == (2, 3, 1)


def test_a_record_of_a_sample_counts_for_those_that_were_left_out() -> None:
    found = counted(prediction(1, "svm:1"), weight=2.5)
    found.predicted(prediction(2, None), NOW_S - 1, NOW_S, weight=4)
    found.audited(audit(1), NOW_S - 1, NOW_S, weight=3)
    found.fed_back("digits", NOW_S - 1, NOW_S, weight=1.5)
    counts = last(found, 10)
    assert (counts.queries, counts.defaults, counts.feedback, counts.sampled) == (6.5, {"late": 4}, 1.5, True)
    assert {ref: one.asked for ref, one in counts.versions.items()} == {"svm:1": 6.5, "nn:3": 3}
    assert len(counts.latencies_ms) == 2, "samples of latencies are not weighed"
