"""Stages are summed up when somebody wants to know, and cost nothing when nobody does."""

import logging

from clipper_agents.observability.stages import REPORT_EVERY_S, StageTimers, untimed


class Profile:
    """Stages on a clock that goes on by what is spent in them."""

    def __init__(self):
        self.now_s = 0.0
        self.stages = StageTimers(lambda: self.now_s)

    def spend(self, name, items, seconds, *within):
        with self.stages(name, items):
            for inner in within:
                self.spend(*inner)
            self.now_s += seconds


def test_batches_of_a_stage_are_added_up_and_what_is_inside_another_counts_for_both():
    profile = Profile()
    for spent in (
        ("decode", 10, 0.25),
        ("outer", 1, 1.0, ("inner", 1, 4.0)),
        ("decode", 30, 0.75),
        ("encode", 40, 2.0),
    ):
        profile.spend(*spent)
    assert profile.stages.lines() == [
        "stage=outer calls=1 items=1 us_a_call=5000000.0 us_an_item=5000000.00",
        "stage=inner calls=1 items=1 us_a_call=4000000.0 us_an_item=4000000.00",
        "stage=encode calls=1 items=40 us_a_call=2000000.0 us_an_item=50000.00",
        "stage=decode calls=2 items=40 us_a_call=500000.0 us_an_item=25000.00",
    ]


def test_the_sums_are_said_every_so_often_and_at_the_end(caplog):
    caplog.set_level(logging.INFO)
    profile = Profile()
    profile.spend("decode", 0, 0.0)
    profile.stages.report()
    assert caplog.messages == []
    profile.now_s = REPORT_EVERY_S
    for _ in range(2):
        profile.stages.report()
    assert len(caplog.messages) == 1
    profile.stages.report(now=True)
    assert caplog.messages[1] == "profile stage=decode calls=1 items=0 us_a_call=0.0 us_an_item=0.00"


def test_a_process_that_is_not_profiled_reads_no_clock():
    with untimed("decode", 5) as timer:
        assert timer is None
