"""A limit and a simulated host: latency = (fixed + per_row * rows) * (1 + noise), noise uniform in [-5 %, 5 %].

The bounds follow from the rules. AIMD surely grows while the cost is below 0.9 / 1.05 of the target, and cannot grow
above 0.9 / 0.95 of it, beyond the two rows of the last step. Quantile regression aims at the 99th percentile, 1.049
times the cost: within a tenth of the size there.
"""

import random

import pytest

from clipper_stream.batching.limit import BatchLimit, make_limit

TARGET_S = 0.02
NOISE = 0.05
MODELS = {
    "cheap rows": (0.001, 1e-5),
    "dear start": (0.010, 5e-5),
    "dear rows": (0.0005, 5e-4),
}


class Host:
    """Costs what a batch costs, in time that only exists as a number."""

    def __init__(self, fixed_s: float, per_row_s: float, seed: int) -> None:
        self.fixed_s, self.per_row_s, self.rng = fixed_s, per_row_s, random.Random(seed)

    def latency_s(self, rows: int) -> float:
        return (self.fixed_s + self.per_row_s * rows) * (1 + self.rng.uniform(-NOISE, NOISE))

    def rows_at(self, cost_s: float) -> float:
        return (cost_s - self.fixed_s) / self.per_row_s


def limits_seen(limit: BatchLimit, host: Host, batches: int) -> list[int]:
    seen = []
    for _ in range(batches):
        seen.append(limit.rows)
        limit.observe(limit.rows, host.latency_s(limit.rows))
    return seen


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("model", MODELS)
def test_aimd_stays_between_the_ends_of_its_dead_band(model, seed):
    host = Host(*MODELS[model], seed)
    tail = limits_seen(make_limit("aimd", TARGET_S, 4096), host, 2000)[1000:]
    assert host.rows_at(0.9 * TARGET_S / (1 + NOISE)) - 1 <= min(tail)
    assert max(tail) <= host.rows_at(0.9 * TARGET_S / (1 - NOISE)) + 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("model", MODELS)
def test_quantile_regression_is_within_a_tenth_of_the_optimum_after_a_hundred_batches(model, seed):
    host = Host(*MODELS[model], seed)
    tail = limits_seen(make_limit("quantile", TARGET_S, 4096), host, 1000)[100:]
    optimum = host.rows_at(TARGET_S / (1 + 0.98 * NOISE))
    assert 0.9 * optimum <= min(tail)
    assert max(tail) <= 1.1 * optimum


@pytest.mark.parametrize("kind", ["aimd", "quantile"])
def test_a_model_that_becomes_slow_and_recovers_is_followed_both_ways(kind):
    fast, slow = Host(0.001, 2e-5, seed=1), Host(0.004, 8e-5, seed=2)
    limit = make_limit(kind, TARGET_S, 4096)
    first, then, again = (limits_seen(limit, host, 1500)[-1] for host in (fast, slow, fast))
    assert first == pytest.approx(fast.rows_at(0.92 * TARGET_S), rel=0.1)
    assert then == pytest.approx(slow.rows_at(0.92 * TARGET_S), rel=0.1)
    assert again == pytest.approx(first, rel=0.1)


def test_quantile_regression_settles_where_aimd_goes_up_and_down():
    tail = limits_seen(make_limit("quantile", TARGET_S, 4096), Host(0.0002, 0.005, seed=3), 400)[200:]
    assert set(tail) == {3}


@pytest.mark.parametrize("kind", ["aimd", "quantile"])
def test_thin_traffic_between_bursts_keeps_the_limit_for_the_next_burst(kind):
    host = Host(0.001, 2e-5, seed=4)
    limit = make_limit(kind, TARGET_S, 4096)
    before = limits_seen(limit, host, 1000)[-1]
    for batch in range(5000):
        rows = 1 + batch % 20
        limit.observe(rows, 0.5 if batch % 200 == 0 else host.latency_s(rows))
    assert limit.rows == pytest.approx(before, rel=0.1)
