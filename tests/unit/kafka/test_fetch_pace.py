import time

import pytest

from clipper_agents.kafka import broker_tasks
from clipper_agents.kafka.broker_tasks import MOST_PAUSE_S, OBJECTIVE_SHARE, WINDOW_S, FetchPace, processor_wanted_s


class Machine:
    """A clock, and processor time that a process has had or waited for by it."""

    def __init__(self, objective_s=None):
        self.now_s = self.used_s = 0.0
        self.pace = FetchPace(lambda: self.now_s, lambda: self.used_s)
        self.pace.keep([objective_s])

    def work(self, share, windows=1.0):
        self.now_s += windows * WINDOW_S
        self.used_s += windows * WINDOW_S * share
        return self.pace.pause_s()


@pytest.mark.parametrize(("share", "part"), [(0.0, 0), (0.5, 0), (0.6, 0.5), (0.7, 1), (1.7, 1)])
def test_the_wait_grows_with_the_use_of_the_processor_from_half_of_it_on(share, part):
    assert Machine().work(share) == pytest.approx(part * MOST_PAUSE_S, abs=1e-9)
    assert Machine(0.002 / OBJECTIVE_SHARE).work(share) == pytest.approx(part * 0.002, abs=1e-9)


def test_it_is_measured_anew_in_each_window_and_kept_within_it():
    machine = Machine()
    assert machine.work(1.0, 0.5) == 0.0, "too short to say"
    assert machine.work(1.0, 0.5) == MOST_PAUSE_S
    assert machine.work(0.0, 0.9) == MOST_PAUSE_S
    assert machine.work(0.0, 0.1) == 0.0


@pytest.mark.parametrize(
    ("objectives_s", "most_s"),
    [([0.02, None, 10.0], 0.02 * OBJECTIVE_SHARE), ([None, 10.0], MOST_PAUSE_S), ([], MOST_PAUSE_S)],
)
def test_it_is_a_share_of_the_tightest_objective_at_most(objectives_s, most_s):
    machine = Machine(0.001)
    machine.work(1.0)
    machine.pace.keep(objectives_s)
    assert machine.pace.pause_s() == pytest.approx(most_s)


@pytest.mark.parametrize("told", ["1500000000 250000000 17\n", None, "", "1 2", "a b c"])
def test_a_process_that_waits_for_its_processor_wants_it_too(tmp_path, monkeypatch, told):
    """Where the system does not tell, the time counts that it had."""
    monkeypatch.setattr(broker_tasks, "SCHEDULED", tmp_path / "schedstat")
    if told is not None:
        (tmp_path / "schedstat").write_text(told)
    before_s, wanted_s = time.process_time(), processor_wanted_s()
    if told and len(told) > 5:
        assert wanted_s == 1.75
    else:
        assert before_s <= wanted_s <= time.process_time()
