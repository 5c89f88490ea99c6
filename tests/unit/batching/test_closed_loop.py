"""A limit and a simulated host: latency = (fixed + per_row * rows) * noise, uniform in [-5 %, 5 %] unless said.

AIMD aims at 1 late batch in 200 and is held to the 99th percentile. Over 4000 batches 20 late ones are expected, with a
standard deviation of about 4.5 if they came independently: 40 (the 99th percentile) is 4.4 of them away.
"""

import random

import pytest

from clipper_stream.batching.limits import BatchLimit, make_limit

TARGET_S = 0.02
NOISE = 0.05
MODELS = {"cheap rows": (0.001, 1e-5), "dear start": (0.010, 5e-5), "dear rows": (0.0005, 5e-4)}


NOISES = {
    "even": lambda rng: 1 + rng.uniform(-NOISE, NOISE),
    "wide": lambda rng: rng.lognormvariate(0, 0.15),
    "two kinds of rows": lambda rng: rng.choice([0.4, 1.0, 1.0]) * rng.lognormvariate(0, 0.03),
    "a slow tail": lambda rng: rng.lognormvariate(0, 0.03) * (1 + (rng.random() < 0.02) * rng.expovariate(4)),
}


class Host:
    """Costs what a batch costs, in time that only exists as a number."""

    def __init__(self, fixed_s: float, per_row_s: float, seed: int, noise: str = "even") -> None:
        self.fixed_s, self.per_row_s, self.rng, self.noise = fixed_s, per_row_s, random.Random(seed), NOISES[noise]

    def latency_s(self, rows: int) -> float:
        return (self.fixed_s + self.per_row_s * rows) * self.noise(self.rng)

    def rows_at(self, cost_s: float) -> float:
        return (cost_s - self.fixed_s) / self.per_row_s

    def served_per_s(self, sizes: list[int]) -> float:
        return sum(sizes) / sum(self.fixed_s + self.per_row_s * rows for rows in sizes)


def limits_seen(limit: BatchLimit, host: Host, batches: int) -> list[int]:
    seen = []
    for _ in range(batches):
        seen.append(limit.rows)
        limit.observe(limit.rows, host.latency_s(limit.rows))
    return seen


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("model", [*MODELS, "three rows"])
def test_aimd_keeps_the_99th_percentile_of_batch_latency_within_the_target(model, noise):
    host = Host(*MODELS.get(model, (0.001, 0.004)), 5, noise)
    limit, latencies_s = make_limit("aimd", TARGET_S, 4096), []
    for _ in range(5000):
        latencies_s.append(host.latency_s(limit.rows))
        limit.observe(limit.rows, latencies_s[-1])
    assert sorted(latencies_s[1000:])[round(0.99 * 4000)] < TARGET_S


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("model", MODELS)
def test_aimd_serves_nearly_as_much_as_the_best_size_that_is_never_late(model, seed):
    host = Host(*MODELS[model], seed)
    best = host.rows_at(TARGET_S / (1 + NOISE))
    tail = limits_seen(make_limit("aimd", TARGET_S, 4096), host, 3000)[300:]
    assert host.served_per_s(tail) > 0.97 * host.served_per_s([best])
