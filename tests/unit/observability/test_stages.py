"""Stages are summed up when somebody wants to know, and cost nothing when nobody does."""

import logging

from clipper_agents.observability.stages import REPORT_EVERY_S, StageTimers, untimed


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def spend(clock, stages, name, items, seconds):
    with stages(name, items):
        clock.now_s += seconds


def test_batches_of_a_stage_are_added_up_and_the_most_expensive_stage_comes_first():
    clock = Clock()
    stages = StageTimers(clock)
    spend(clock, stages, "decode", 10, 0.25)
    spend(clock, stages, "decode", 30, 0.75)
    spend(clock, stages, "encode", 40, 2.0)
    assert stages.lines() == [
        "stage=encode calls=1 items=40 us_a_call=2000000.0 us_an_item=50000.00",
        "stage=decode calls=2 items=40 us_a_call=500000.0 us_an_item=25000.00",
    ]


def test_what_is_inside_another_stage_counts_for_both():
    clock = Clock()
    stages = StageTimers(clock)
    with stages("outer", 1):
        spend(clock, stages, "inner", 1, 1.0)
        clock.now_s += 1.0
    outer, inner = stages.lines()
    assert outer.startswith("stage=outer calls=1 items=1 us_a_call=2000000.0")
    assert inner.startswith("stage=inner calls=1 items=1 us_a_call=1000000.0")


def test_the_sums_are_said_every_so_often_and_at_the_end(caplog):
    caplog.set_level(logging.INFO)
    clock = Clock()
    stages = StageTimers(clock)
    spend(clock, stages, "decode", 0, 0.0)
    stages.report()
    assert caplog.messages == []
    clock.now_s = REPORT_EVERY_S
    stages.report()
    stages.report()
    assert len(caplog.messages) == 1
    stages.report(now=True)
    assert caplog.messages[1] == "profile stage=decode calls=1 items=0 us_a_call=0.0 us_an_item=0.00"


def test_a_process_that_is_not_profiled_reads_no_clock():
    with untimed("decode", 5) as timer:
        assert timer is None
