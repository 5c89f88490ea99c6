"""Section 4.3.1 of Clipper, case by case."""

import json
from pathlib import Path

import pytest

from clipper_stream.batching.aimd import (
    FEW_ROWS,
    FIRST_CEILING,
    HIGHEST_CEILING,
    LOWEST_CEILING,
    PROBE_BATCHES,
    RELAXED_ROUNDS,
    ROUND_BATCHES,
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


@pytest.mark.parametrize(
    ("start_rows", "latencies_s", "expected"),
    [
        pytest.param(100, [FAST_S] * (ROUND_BATCHES - 1), 90, id="no step before the end of a round"),
        pytest.param(100, [FAST_S] * ROUND_BATCHES, 93, id="one step a round"),
        pytest.param(100, [FAST_S] * (2 * ROUND_BATCHES - 1), 93, id="no second step before the end of the second"),
        pytest.param(100, [FAST_S] * 2 * ROUND_BATCHES, 96, id="a second step in the second round"),
        pytest.param(100, [FAST_S] * (ROUND_BATCHES - 1) + [ABOVE_CEILING_S], 90, id="one slow batch in a round"),
        pytest.param(1000, [FAST_S] * 3 * ROUND_BATCHES, 993, id="three steps win a late batch back"),
        pytest.param(4, [FAST_S] * ROUND_BATCHES, 4, id="small limits grow by single rows"),
        pytest.param(100, [0.001] * ROUND_BATCHES, 180, id="a model that became fast is probed again"),
        pytest.param(100, [0.001] * ROUND_BATCHES + [0.002] * PROBE_BATCHES, 360, id="and by doubling"),
    ],
)
def test_a_settled_limit_moves_by_rounds(start_rows, latencies_s, expected):
    assert observe_full(settled(start_rows), *latencies_s).rows == expected


def test_late_batches_lower_the_ceiling_and_batches_in_time_raise_it_within_its_bounds():
    limit = settled(1000)
    assert limit.ceiling_ratio == FIRST_CEILING, "the first late batch ends the probing and teaches it nothing"
    assert observe_full(limit, ABOVE_CEILING_S, LATE_S).ceiling_ratio == pytest.approx(FIRST_CEILING - 0.0198)
    assert observe_full(limit, *[ABOVE_CEILING_S] * 198).ceiling_ratio == pytest.approx(FIRST_CEILING)
    assert observe_full(limit, *[ABOVE_CEILING_S, LATE_S] * 30).ceiling_ratio == pytest.approx(LOWEST_CEILING)
    assert observe_full(limit, *[ABOVE_CEILING_S] * 10_000).ceiling_ratio == HIGHEST_CEILING


@pytest.mark.parametrize("latencies_s", [(ABOVE_CEILING_S, 0.5), (LATE_S, LATE_S)], ids=["a pause", "a slower model"])
def test_what_no_ceiling_avoids_does_not_lower_it(latencies_s):
    assert observe_full(settled(), *latencies_s).ceiling_ratio >= FIRST_CEILING


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


def hopeless(one_row_s: float = 0.030) -> RelaxedTarget:
    """One whose model takes longer than the target for one row."""
    return observe_full(aimd(start_rows=1), *[one_row_s] * ROUND_BATCHES)


def test_a_target_that_one_row_alone_misses_gives_way_to_twice_what_it_takes():
    limit = hopeless()
    assert (limit.rows, limit.target_s) == (1, pytest.approx(0.060))
    shared = observe_full(limit, *[0.031] * 2 * PROBE_BATCHES).rows
    assert shared > 1  # a call of two rows takes as long, so rows share it from now on
    assert observe_full(limit, 0.060).rows < shared + 1


@pytest.mark.parametrize(
    ("latencies_s", "target_s", "least_rows"),
    [
        pytest.param(([0.010] * 2 * ROUND_BATCHES + [LATE_S]) * 20, 0.020, FEW_ROWS + 1, id="late now and then"),
        pytest.param([FAST_S, 0.030, FAST_S] * ROUND_BATCHES, 0.060, 1, id="late every third time"),
        pytest.param([0.030] * ROUND_BATCHES + [0.031] * 6, 0.060, 2, id="late always"),
        pytest.param(
            [0.030] * ROUND_BATCHES + [0.031] * 6 + [0.010] * ROUND_BATCHES, 0.020, 2, id="until a round keeps it"
        ),
    ],
)
def test_few_rows_that_are_late_relax_the_target(latencies_s, target_s, least_rows):
    limit = observe_full(aimd(start_rows=1), *latencies_s)
    assert limit.target_s == pytest.approx(target_s)
    assert limit.rows >= least_rows


def test_the_target_is_tried_again_after_a_while():
    limit = hopeless()
    # within the longer target, and not within the one asked for
    in_force = [round(observe_full(limit, 0.045).target_s, 3) for _ in range(ROUND_BATCHES * RELAXED_ROUNDS)]
    assert in_force[0] == 0.060
    assert 0.020 in in_force


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
