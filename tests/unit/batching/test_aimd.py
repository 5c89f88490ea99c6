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


def observe_full(limit: RelaxedTarget, *latencies_s: float) -> RelaxedTarget:
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


def test_a_settled_limit_takes_one_step_a_round():
    limit = settled()
    seen = [observe_full(limit, FAST_S).rows for _ in range(2 * ROUND_BATCHES)]
    assert seen == [90] * (ROUND_BATCHES - 1) + [93] * ROUND_BATCHES + [96]


def test_one_slow_batch_in_a_round_keeps_the_limit_from_growing():
    limit = settled()
    assert observe_full(limit, *[FAST_S] * (ROUND_BATCHES - 1), ABOVE_CEILING_S).rows == 90


def test_three_steps_win_a_late_batch_back():
    limit = observe_full(settled(1000), *[FAST_S] * (3 * ROUND_BATCHES))
    assert limit.rows == 993


def test_small_limits_grow_by_single_rows():
    assert observe_full(settled(4), *[FAST_S] * ROUND_BATCHES).rows == 4


def test_a_model_that_became_fast_is_probed_again_by_doubling():
    limit = observe_full(settled(), *[0.001] * ROUND_BATCHES)
    assert limit.rows == 180
    assert observe_full(limit, *[0.002] * PROBE_BATCHES).rows == 360


def test_late_batches_lower_the_ceiling_and_batches_in_time_raise_it():
    limit = settled()
    start = limit.ceiling_ratio
    lowered = observe_full(limit, ABOVE_CEILING_S, LATE_S).ceiling_ratio
    assert lowered == pytest.approx(start - 0.0198)
    assert observe_full(limit, *[ABOVE_CEILING_S] * 198).ceiling_ratio == pytest.approx(start)


def test_the_ceiling_stays_within_its_bounds():
    limit = settled(1000)
    for _ in range(30):
        observe_full(limit, ABOVE_CEILING_S, LATE_S)
    assert limit.ceiling_ratio == pytest.approx(LOWEST_CEILING)
    assert observe_full(limit, *[ABOVE_CEILING_S] * 10_000).ceiling_ratio == HIGHEST_CEILING


@pytest.mark.parametrize("latencies_s", [(ABOVE_CEILING_S, 0.5), (LATE_S, LATE_S)], ids=["a pause", "a slower model"])
def test_what_no_ceiling_avoids_does_not_lower_it(latencies_s):
    limit = settled()
    observe_full(limit, *latencies_s)
    assert limit.ceiling_ratio >= FIRST_CEILING


def test_the_first_late_batch_ends_the_probing_and_teaches_the_ceiling_nothing():
    assert settled().ceiling_ratio == FIRST_CEILING


@pytest.mark.parametrize("latency_s", [float("nan"), -1.0], ids=str)
def test_a_latency_that_no_clock_can_measure_is_ignored(latency_s):
    assert observe_full(aimd(), *[latency_s] * 20).rows == 100


def test_the_limit_starts_at_one_row():
    assert RelaxedTarget(target_s=0.02, max_rows=10).rows == 1


def test_one_pause_on_a_single_row_does_not_lower_the_limit():
    limit = aimd()
    for latency_s in (FAST_S, 0.5, FAST_S, 0.5, FAST_S):
        limit.observe(1, latency_s)
    assert limit.rows == 100


def test_late_thin_batches_in_a_row_take_ten_percent_each():
    limit = aimd()
    for _ in range(3):
        limit.observe(50, LATE_S)
    assert limit.rows == 81


def test_a_late_batch_of_an_older_limit_does_not_raise_a_lowered_one():
    limit = aimd(start_rows=10)
    limit.observe(100, LATE_S)
    assert limit.rows == 10


@pytest.mark.parametrize("arguments", [dict(start_rows=0), dict(start_rows=1001), dict(start_rows=-3)], ids=str)
def test_a_start_outside_its_bound_is_refused_with_the_value(arguments):
    with pytest.raises(InvalidSetting, match=str(arguments["start_rows"])):
        aimd(**arguments)


def hopeless(one_row_s: float = 0.030) -> RelaxedTarget:
    """One whose model takes longer than the target for one row."""
    return observe_full(aimd(start_rows=1), *[one_row_s] * ROUND_BATCHES)


def test_a_target_that_one_row_alone_misses_gives_way_to_twice_what_it_takes():
    limit = hopeless()
    assert (limit.rows, limit.target_s) == (1, pytest.approx(0.060))
    seen = [observe_full(limit, 0.031).rows for _ in range(2 * PROBE_BATCHES)]
    assert seen[-1] > 1  # a call of two rows takes as long, so rows share it from now on
    assert observe_full(limit, 0.060).rows < seen[-1] + 1


def test_few_rows_that_are_late_now_and_then_do_not_relax_the_target():
    limit = aimd(start_rows=1)
    for _ in range(20):
        observe_full(limit, *[0.010] * 2 * ROUND_BATCHES, LATE_S)
    assert limit.target_s == pytest.approx(0.020)
    assert limit.rows > FEW_ROWS


def test_few_rows_that_are_late_every_third_time_do():
    """On a busy processor single rows take anything; eight in time in a row are rare then, and growth with them."""
    limit = observe_full(aimd(start_rows=1), *[FAST_S, 0.030, FAST_S] * ROUND_BATCHES)
    assert limit.target_s == pytest.approx(0.060)


def test_the_target_is_in_force_again_when_a_round_keeps_it():
    limit = observe_full(hopeless(), *[0.031] * 6)
    rows = limit.rows
    assert rows > 1
    observe_full(limit, *[0.010] * ROUND_BATCHES)
    assert limit.target_s == pytest.approx(0.020)
    assert limit.rows >= rows


def test_the_target_is_tried_again_after_a_while():
    limit = hopeless()
    in_force = []
    for _ in range(ROUND_BATCHES * RELAXED_ROUNDS):
        limit.observe(limit.rows, 0.045)  # within the longer target, and not within the one asked for
        in_force.append(round(limit.target_s, 3))
    assert in_force[0] == 0.060
    assert 0.020 in in_force


def test_the_papers_rule_steps_up_in_time_and_ten_percent_down_when_late():
    limit = Aimd(target_s=0.02, max_rows=100, start_rows=90)
    seen = [(limit.observe(limit.rows, latency_s), limit.rows)[1] for latency_s in (FAST_S, FAST_S, LATE_S, FAST_S)]
    assert seen == [93, 96, 86, 88]


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
