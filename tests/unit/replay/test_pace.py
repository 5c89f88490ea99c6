import numpy as np
import pytest

from clipper_agents.replay.pace import Lateness, Pace


@pytest.mark.parametrize(
    ("speed", "due_s"), [(10.0, [50.0, 50.1, 56.0, 50.0]), (1.0, [50.0, 51.0, 110.0, 50.0]), (None, [50.0] * 4)]
)
def test_a_record_is_due_at_its_logged_delay_divided_by_the_speed_and_none_before_the_first(speed, due_s):
    pace = Pace(first_ms=1_000, started_s=50.0, speed=speed)
    assert [pace.due_s(at_ms) for at_ms in (1_000, 2_000, 61_000, 0)] == due_s


@pytest.mark.parametrize("percent", [0, 10, 50, 90, 99, 100])
def test_a_percentile_is_at_most_a_tenth_above_the_measured_one(percent):
    late_s, lateness = np.random.default_rng(7).lognormal(-6, 2, 2_000), Lateness()
    for value in late_s:
        lateness.add(value)
    exact_ms = np.percentile(late_s, percent, method="higher") * 1000
    found_ms = lateness.percentile_ms(percent)
    assert exact_ms * 0.999 - 0.1 <= found_ms <= max(0.1, exact_ms * 1.1) + 0.001


@pytest.mark.parametrize(("late_s", "found_ms"), [((), None), ((-1.0,), 0.0), ((86_400.0,), 86_400_000.0)])
def test_nothing_sent_has_no_percentile_and_early_is_in_time_and_very_late_is_exact(late_s, found_ms):
    lateness = Lateness()
    for value in late_s:
        lateness.add(value)
    assert lateness.percentile_ms(50) == found_ms
