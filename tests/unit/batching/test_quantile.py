"""What quantile regression does that AIMD does not; its line against the definition.

No line through two points, or flat, or through the origin, has a smaller loss.
"""

import itertools
import math
import random

import numpy as np
import pytest

from clipper_stream.batching.quantile import LatencyLine, QuantileRegression, fit_line


def after(latencies_s, limit):
    for latency_s in latencies_s:
        limit.observe(limit.rows, latency_s)
    return limit


def settled() -> QuantileRegression:
    limit = QuantileRegression(target_s=0.02, max_rows=4096)
    for _ in range(200):
        limit.observe(limit.rows, 0.002 + 0.0001 * limit.rows)
    return limit


def test_it_settles_on_the_line_without_noise():
    assert 175 <= settled().rows <= 180


@pytest.mark.parametrize("latencies_s", [[0.5], [math.nan, math.inf, -1.0]], ids=["a pause", "no clock measures this"])
def test_what_says_nothing_about_the_model_does_not_lower_the_limit(latencies_s):
    limit = settled()
    before = limit.rows
    assert after(latencies_s, limit).rows == before


def test_growth_follows_sent_batches_by_at_most_a_quarter_with_a_line():
    limit = QuantileRegression(target_s=0.02, max_rows=100_000)
    for batch in range(60):
        before = limit.rows
        limit.observe(before, 0.0001)
        assert limit.rows <= (2 * before if batch < 20 else before + before // 4 + 1)


def test_a_model_too_slow_for_one_row_is_sent_few_rows():
    limit = QuantileRegression(target_s=0.02, max_rows=512)
    for _ in range(300):
        limit.observe(limit.rows, 0.05 * limit.rows)
        assert limit.rows <= 4


def test_a_flat_latency_leads_to_max_rows_and_one_that_misses_the_target_is_shared_by_many():
    assert after([0.005] * 100, QuantileRegression(target_s=0.02, max_rows=512)).rows == 512
    assert after([0.05] * 300, QuantileRegression(target_s=0.02, max_rows=512)).rows > 100


def loss(line, rows, latency_s, level):
    above = latency_s - (line.per_row_s * rows + line.fixed_s)
    return float(np.maximum(level * above, (level - 1) * above).sum())


def vertices(rows, latency_s):
    """Every line that can be the minimum: through two points, or through one and flat or through the origin."""
    points = list(zip(rows.tolist(), latency_s.tolist(), strict=True))
    for (x, y), (u, v) in itertools.combinations(points, 2):
        if x != u:
            yield LatencyLine(per_row_s=(v - y) / (u - x), fixed_s=y - x * (v - y) / (u - x))
    for x, y in points:
        yield LatencyLine(per_row_s=0.0, fixed_s=y)
        yield LatencyLine(per_row_s=y / x, fixed_s=0.0)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("seed", range(5))
def test_no_line_with_slope_and_intercept_of_at_least_zero_has_a_smaller_loss(seed, level):
    rng = random.Random(seed)
    rows = np.array([float(rng.randint(1, 200)) for _ in range(40)])
    latency_s = (0.002 + 1e-4 * rows) * np.array([rng.uniform(0.8, 1.3) for _ in rows])
    possible = [line for line in vertices(rows, latency_s) if line.per_row_s >= 0 and line.fixed_s >= 0]
    least = min(loss(line, rows, latency_s, level) for line in possible)
    assert loss(fit_line(rows, latency_s, level), rows, latency_s, level) <= least * 1.001


def test_a_single_point_has_a_line_through_it():
    line = fit_line(np.array([10.0]), np.array([0.01]), 0.99)
    assert line.per_row_s * 10 + line.fixed_s == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (LatencyLine(per_row_s=0.0, fixed_s=0.0), 64),
        (LatencyLine(per_row_s=0.0, fixed_s=0.03), None),
        (LatencyLine(per_row_s=0.021, fixed_s=0.0), None),
        (LatencyLine(per_row_s=0.02, fixed_s=0.0), 1),
        (LatencyLine(per_row_s=1e-300, fixed_s=0.019), 64),
        (LatencyLine(per_row_s=0.001, fixed_s=0.0105), 9),
    ],
)
def test_rows_within_the_target_are_read_off_the_line(line, expected):
    assert line.rows_within(0.02, max_rows=64) == expected
