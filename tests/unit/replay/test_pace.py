import numpy as np
import pytest

from clipper_agents.replay.pace import Lateness, Pace


def test_a_record_is_due_at_its_logged_delay_divided_by_the_speed():
    pace = Pace(first_ms=1_000, started_s=50.0, speed=10.0)
    assert [pace.due_s(at_ms) for at_ms in (1_000, 2_000, 61_000)] == [50.0, 50.1, 56.0]


def test_a_record_before_the_first_is_due_at_once():
    assert Pace(first_ms=1_000, started_s=50.0, speed=1.0).due_s(0) == 50.0


def test_as_fast_as_possible_all_are_due_at_the_start():
    assert Pace(first_ms=1_000, started_s=50.0, speed=None).due_s(10**9) == 50.0


@pytest.mark.parametrize("percent", [0, 10, 50, 90, 99, 100])
def test_a_percentile_is_at_most_a_tenth_above_the_measured_one(percent):
    late_s, lateness = np.random.default_rng(7).lognormal(-6, 2, 2_000), Lateness()
    for value in late_s:
        lateness.add(value)
    exact_ms = np.percentile(late_s, percent, method="higher") * 1000
    found_ms = lateness.percentile_ms(percent)
    assert exact_ms * 0.999 - 0.1 <= found_ms <= max(0.1, exact_ms * 1.1) + 0.001


def test_nothing_sent_has_no_percentile_and_early_is_in_time():
    lateness = Lateness()
    assert lateness.percentile_ms(50) is None
    lateness.add(-1.0)
    assert lateness.percentile_ms(100) == 0.0


def test_what_is_later_than_every_bound_is_said_exactly():
    lateness = Lateness()
    lateness.add(86_400.0)
    assert lateness.percentile_ms(50) == 86_400_000.0
