"""A fetch waits only while the process is busy, and never for long."""

import pytest

from clipper_agents.streaming.pacing import MOST_S, WINDOW_S, Pace


class Machine:
    """A clock, and processor time that a process has used by it."""

    def __init__(self):
        self.now_s = self.used_s = 0.0
        self.pace = Pace(lambda: self.now_s, lambda: self.used_s)

    def work(self, share, windows=1.0):
        self.now_s += windows * WINDOW_S
        self.used_s += windows * WINDOW_S * share
        return self.pace.wait_s()


@pytest.mark.parametrize(("share", "wait_s"), [(0.0, 0), (0.5, 0), (0.75, MOST_S / 2), (1.0, MOST_S), (1.7, MOST_S)])
def test_the_wait_grows_with_the_use_of_the_processor_from_half_of_it_on(share, wait_s):
    assert Machine().work(share) == pytest.approx(wait_s)


def test_it_is_measured_anew_in_each_window_and_kept_within_it():
    machine = Machine()
    assert machine.work(1.0, 0.5) == 0.0, "too short to say"
    assert machine.work(1.0, 0.5) == MOST_S
    assert machine.work(0.0, 0.9) == MOST_S
    assert machine.work(0.0, 0.1) == 0.0
