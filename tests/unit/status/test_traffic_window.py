"""Are figures of what flowed those of the seconds that they are said to be of?"""

import pytest
from builders.status import NOW_S, audit, prediction, recent

from clipper_agents.status.traffic_window import LONGEST_S, TrafficCounts, TrafficWindow
from clipper_topics.prediction import MissingRow, Prediction


def counted(*predictions: Prediction, weight: float = 1) -> TrafficWindow:
    """Each of the last second."""
    found = TrafficWindow()
    for one in predictions:
        found.predicted(one, NOW_S - 1, NOW_S, weight)
    return found


def last(found: TrafficWindow, seconds: int = 1, now_s: float = NOW_S) -> TrafficCounts:
    return found.window("digits", now_s, seconds)


def queries(counts: TrafficCounts) -> float:
    return counts.amounts["queries",]


def test_a_window_counts_whole_seconds_and_not_the_one_that_goes_on() -> None:
    found = TrafficWindow()
    for ago_s in (11.0, 10.0, 0.5, -0.25):
        found.predicted(prediction(1, "svm:1"), NOW_S - ago_s, NOW_S)
    assert queries(last(found, 10)) == 2
    assert queries(last(found, 10, NOW_S + 1)) == 2
    assert queries(last(found, LONGEST_S)) == 3


def test_a_record_from_the_future_counts_as_now() -> None:
    found = TrafficWindow()
    found.predicted(prediction(1, "svm:1"), NOW_S + 3600, NOW_S)
    assert queries(last(found, 1, NOW_S + 1)) == 1


@pytest.mark.parametrize(
    ("bounds", "asked_s", "seconds", "count"),
    [({"since_s": NOW_S - 4.5}, 60, 4, 40), ({"until_s": NOW_S - 1.5}, 10, 10, 80)],
)
def test_seconds_of_which_not_everything_was_read_are_not_counted(bounds, asked_s, seconds, count) -> None:
    found = recent()
    for name, at_s in bounds.items():
        setattr(found, name, at_s)
    counts = last(found, asked_s)
    assert (counts.seconds, queries(counts)) == (seconds, count)


def test_what_no_window_reaches_is_forgotten_and_an_invented_application_with_it() -> None:
    found = recent()
    found.forget(NOW_S + LONGEST_S - 5)
    assert queries(last(found, LONGEST_S, NOW_S + LONGEST_S - 5)) == 50
    found.forget(NOW_S + LONGEST_S + 1)
    assert not found._seconds
    found.predicted(prediction(1, "svm:1"), NOW_S - LONGEST_S - 1, NOW_S)
    assert not found._seconds


def test_a_default_is_answered_by_nobody_and_still_asked_somebody() -> None:
    counts = last(recent(), 10)
    assert (counts.by("default"), counts.by("feedback"), counts.sampled) == ({"late": 3}, {}, False)
    found = [counts.by(what) for what in ("asked", "answered", "served")]
    assert found == [
        {"nn:3": 100, "svm:1": 65, "knn:1": 30, "rf:2": 5},
        {"nn:3": 100, "svm:1": 62, "knn:1": 30, "rf:2": 5},
        {"svm:1": 62, "knn:1": 30, "rf:2": 5, "nn:3": 0},
    ]
    assert (counts.amounts["feedback",], queries(counts)) == (50, 100), "an audit is no query of its own"
    assert {*counts.samples_ms["version", "nn:3"]} == {80.0}
    unsure = prediction(1, "svm:1")
    unsure.default, unsure.reason = True, "low_confidence"
    counts = last(counted(unsure))
    assert (counts.by("served"), counts.by("asked")) == ({"svm:1": 0}, {"svm:1": 1}), "it agreed too little"
    assert counts.by("default") == {"low_confidence": 1}


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
    assert counts.by("unanswered", "svm:1") == {"error": 2, "late": 1}
    assert (counts.by("asked"), counts.by("answered")) == ({"svm:1": 3}, {"svm:1": 1})
    assert counts.said == {"svm:1": "ValueError: two"}
    assert last(found).said == {}, "it failed before"


def test_an_answer_from_a_cache_is_counted_and_took_no_time_of_the_model() -> None:
    answers = [prediction(1, "svm:1") for _ in range(3)]
    answers[0].models[0].cached = answers[2].models[0].cached = True
    counts = last(counted(*answers))
    assert (counts.by("cached"), counts.by("answered")) == ({"svm:1": 2}, {"svm:1": 3})
    assert len(counts.samples_ms["version", "svm:1"]) == 1


def test_a_record_of_a_sample_counts_for_those_that_were_left_out() -> None:
    found = counted(prediction(1, "svm:1"), weight=2.5)
    found.predicted(prediction(2, None), NOW_S - 1, NOW_S, weight=4)
    found.audited(audit(1), NOW_S - 1, NOW_S, weight=3)
    found.fed_back("digits", NOW_S - 1, NOW_S, weight=1.5)
    counts = last(found, 10)
    assert (queries(counts), counts.amounts["default", "late"], counts.amounts["feedback",]) == (6.5, 4, 1.5)
    assert counts.sampled
    assert (counts.amounts["asked", "svm:1"], counts.amounts["asked", "nn:3"]) == (6.5, 3)
    assert len(counts.samples_ms["answers",]) == 2, "samples of latencies are not weighed"
