import pytest

from clipper_gateway.admission import LEAST_CALLS, WINDOW_S, CallAdmission

OBJECTIVE_S = 0.2


def answered(admission, *, in_time, late, seconds=WINDOW_S, now_s=0.0):
    """Answers of an application, so many a second, spread over some seconds."""
    answers = [False] * round(in_time * seconds) + [True] * round(late * seconds)
    for number, is_late in enumerate(answers, 1):
        admission.begin("digits", "ada")
        at_s = now_s + seconds * number / len(answers)
        admission.end("digits", "ada", is_late=is_late, objective_s=OBJECTIVE_S, now_s=at_s)
    return now_s + seconds


def waiting_calls(admission, now_s, most=2_000, callers=("ada", "grace")):
    """How many calls of callers who take turns may wait; they wait no more afterwards."""
    began = []
    while len(began) < most and admission.wait_s("digits", caller := callers[len(began) % len(callers)], now_s) is None:
        admission.begin("digits", caller)
        began.append(caller)
    for caller in began:
        admission.end("digits", caller, is_late=None, objective_s=OBJECTIVE_S, now_s=now_s)
    return len(began)


@pytest.mark.parametrize(
    ("in_time", "late", "calls"),
    [
        (1_000, 0, 1_000),
        (1_000, 40, 1_000),
        (0, 1_000, 1_000),
        (500, 2_000, pytest.approx(500 * OBJECTIVE_S * 0.8, rel=0.05)),
        (8, 8, LEAST_CALLS),
    ],
    ids=["in time", "few late", "all late", "overloaded", "hardly any"],
)
def test_as_many_calls_may_wait_as_are_answered_in_time_when_many_are_late(in_time, late, calls):
    admission = CallAdmission(most=1_000)
    assert waiting_calls(admission, answered(admission, in_time=in_time, late=late)) == calls


def test_nothing_is_refused_any_more_some_seconds_after_an_overload():
    admission = CallAdmission(most=1_000)
    now_s = answered(admission, in_time=500, late=2_000)
    for _ in range(16):
        now_s = answered(admission, in_time=500, late=0, now_s=now_s)
    assert waiting_calls(admission, now_s) > 300


def test_without_an_objective_nothing_is_late():
    admission = CallAdmission(most=1_000)
    for number in range(1_000):
        admission.begin("digits", "ada")
        admission.end("digits", "ada", is_late=bool(number % 2), objective_s=None, now_s=number / 1_000)
    assert waiting_calls(admission, 1.0) == 1_000


def test_a_refused_call_comes_again_when_what_waits_is_answered():
    admission = CallAdmission(most=600)
    now_s = answered(admission, in_time=200, late=0)
    for _ in range(600):
        admission.begin("digits", "ada")
    assert admission.wait_s("digits", "grace", now_s) == pytest.approx(3.0, rel=0.05)
    assert admission.wait_s("other", "ada", now_s) is None


def test_one_caller_leaves_a_tenth_of_the_places_to_others():
    admission = CallAdmission(most=1_000)
    assert waiting_calls(admission, 0.0, callers=("ada",)) == 900
    for _ in range(900):
        admission.begin("digits", "ada")
    assert admission.wait_s("digits", "ada", 0.0) is not None
    assert waiting_calls(admission, 0.0, callers=("grace",)) == 100
