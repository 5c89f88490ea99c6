"""Which further calls of an application may wait."""

import pytest

from clipper_gateway.admission import FREE_CALLS, WINDOW_S, CallAdmission


def overloaded(admission, *, waiting, latency_s, rate):
    """An application of which so many calls wait, and that has answered at this rate and latency for a second."""
    for _ in range(waiting):
        admission.begin("digits")
    now_s = 0.0
    while now_s < 1.0:
        now_s += 1.0 / rate
        admission.begin("digits")
        admission.end("digits", latency_s, now_s)
    return now_s


def test_calls_of_an_application_that_answers_in_time_may_wait():
    admission = CallAdmission(most=1_000)
    now_s = overloaded(admission, waiting=500, latency_s=0.02, rate=1_000)
    assert admission.wait_s("digits", 0.1, now_s) is None
    assert admission.wait_s("other", 0.1, now_s) is None


def test_a_call_that_would_be_answered_too_late_is_refused_at_once():
    admission = CallAdmission(most=1_000)
    now_s = overloaded(admission, waiting=200, latency_s=0.09, rate=1_000)
    assert admission.wait_s("digits", 0.1, now_s) == pytest.approx(0.2, rel=0.2)
    assert admission.wait_s("digits", None, now_s) is None  # no objective: it has the time


def test_a_few_calls_may_wait_whatever_was_measured():
    admission = CallAdmission(most=1_000)
    now_s = overloaded(admission, waiting=FREE_CALLS - 1, latency_s=5.0, rate=10)
    assert admission.wait_s("digits", 0.1, now_s) is None


def test_a_burst_after_a_pause_is_taken():
    admission = CallAdmission(most=1_000)
    now_s = overloaded(admission, waiting=0, latency_s=0.01, rate=10) + 60.0
    for _ in range(500):
        assert admission.wait_s("digits", 0.1, now_s) is None
        admission.begin("digits")


def test_nothing_is_refused_once_the_load_has_fallen():
    admission = CallAdmission(most=1_000)
    now_s = overloaded(admission, waiting=200, latency_s=0.09, rate=1_000)
    for _ in range(200):
        now_s += 0.001
        admission.end("digits", 0.09, now_s)
    assert admission.wait_s("digits", 0.1, now_s + WINDOW_S) is None


def test_no_application_has_more_calls_than_its_bound():
    admission = CallAdmission(most=2)
    admission.begin("digits")
    admission.begin("digits")
    assert admission.wait_s("digits", None, 0.0) == 1.0
    assert admission.wait_s("other", None, 0.0) is None
    admission.end("digits", None, 1.0)
    assert admission.wait_s("digits", None, 1.0) is None
