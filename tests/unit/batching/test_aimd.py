"""Section 4.3.1 of Clipper: where a batch is just late or just in time, and what recorded traces were answered with."""

import json
from pathlib import Path

import pytest

from clipper_stream.batching.limits import (
    FIRST_CEILING,
    HIGHEST_CEILING,
    LOWEST_CEILING,
    PROBE_BATCHES,
    Aimd,
    RelaxedTarget,
)
from clipper_stream.errors import InvalidSetting

TRACES = json.loads(Path(__file__).with_name("aimd_traces.json").read_text())
"""Measured and drawn latencies, and the limits that one class with all of the rules in it had after each of them."""
FAST_S, ABOVE_CEILING_S, LATE_S = 0.0159, 0.0191, 0.020


def aimd(start_rows: int = 100, max_rows: int = 1000) -> RelaxedTarget:
    return RelaxedTarget(target_s=0.02, max_rows=max_rows, start_rows=start_rows)


def settled(start_rows: int = 100) -> RelaxedTarget:
    """One that has met its first late batch, and has 90 % of these rows."""
    limit = aimd(start_rows)
    limit.observe(start_rows, LATE_S)
    return limit


def observe_full(limit, *latencies_s: float):
    for latency_s in latencies_s:
        limit.observe(limit.rows, latency_s)
    return limit


@pytest.mark.parametrize(
    ("latency_s", "expected"),
    [(0.0079, 200), (0.0082, 195), (0.0120, 133), (FAST_S, 103), (ABOVE_CEILING_S, 100), (LATE_S, 90), (1.0, 90)],
    ids=str,
)
def test_full_batches_move_the_limit_by_their_latency(latency_s, expected):
    batches = PROBE_BATCHES if latency_s < LATE_S else 1
    assert observe_full(aimd(), *[latency_s] * batches).rows == expected


def test_late_batches_lower_the_ceiling_and_batches_in_time_raise_it_within_its_bounds():
    limit = settled(1000)
    assert limit.ceiling_ratio == FIRST_CEILING, "the first late batch ends the probing and teaches it nothing"
    assert observe_full(limit, ABOVE_CEILING_S, LATE_S).ceiling_ratio == pytest.approx(FIRST_CEILING - 0.0198)
    assert observe_full(limit, *[ABOVE_CEILING_S] * 198).ceiling_ratio == pytest.approx(FIRST_CEILING)
    assert observe_full(limit, *[ABOVE_CEILING_S, LATE_S] * 30).ceiling_ratio == pytest.approx(LOWEST_CEILING)
    assert observe_full(limit, *[ABOVE_CEILING_S] * 10_000).ceiling_ratio == HIGHEST_CEILING


@pytest.mark.parametrize(
    ("start_rows", "batches", "expected"),
    [
        pytest.param(100, [(100, float("nan")), (100, -1.0)] * 10, 100, id="no clock can measure these"),
        pytest.param(100, [(1, FAST_S), (1, 0.5), (1, FAST_S), (1, 0.5), (1, FAST_S)], 100, id="pauses on single rows"),
        pytest.param(100, [(50, LATE_S)] * 3, 81, id="late thin batches in a row take ten percent each"),
        pytest.param(10, [(100, LATE_S)], 10, id="a late batch of an older limit does not raise a lowered one"),
    ],
)
def test_batches_of_fewer_or_more_rows_than_the_limit(start_rows, batches, expected):
    limit = aimd(start_rows)
    for rows, latency_s in batches:
        limit.observe(rows, latency_s)
    assert limit.rows == expected


def test_the_limit_starts_at_one_row_or_within_its_bound():
    assert RelaxedTarget(target_s=0.02, max_rows=10).rows == 1
    for start_rows in (0, 1001, -3):
        with pytest.raises(InvalidSetting, match=str(start_rows)):
            aimd(start_rows)


def test_the_papers_rule_steps_up_in_time_and_ten_percent_down_when_late():
    limit = Aimd(target_s=0.02, max_rows=100, start_rows=90)
    assert [observe_full(limit, latency_s).rows for latency_s in (FAST_S, FAST_S, LATE_S, FAST_S)] == [93, 96, 86, 88]


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace["name"])
def test_limits_on_recorded_latencies_are_what_they_always_were(trace):
    limit = RelaxedTarget(trace["target_s"], trace["max_rows"], trace["start_rows"])
    limits, targets_ns, ceilings = [], [], []
    for number, (rows, latency_us) in enumerate(zip(trace["rows"], trace["latency_us"], strict=True)):
        limit.observe(rows, latency_us / 1e6)
        limits.append(limit.rows)
        target_ns = round(limit.target_s * 1e9)
        if not targets_ns or targets_ns[-1][1] != target_ns:
            targets_ns.append([number, target_ns])
        if number % 50 == 49:
            ceilings.append(limit.ceiling_ratio.hex())
    assert (limits, targets_ns, ceilings) == (trace["limits"], trace["targets_ns"], trace["ceilings"])
