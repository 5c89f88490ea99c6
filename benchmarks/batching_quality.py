"""How often is a batch late, and how soon is a limit right again, when hosts differ and models change their speed?

    python benchmarks/batching_quality.py        # ten seconds; simulated, seeded, the same on every machine

Simulated hosts: a batch of n rows takes (fixed + n * per_row) * noise. Noise: log-normal by 5 %, one batch in fifty
longer by an exponential tail (mean 25 %), one in 500 three times as long (a pause, whatever its size). Scenarios, of
6000 batches:

- `steady`: hosts of speed 0.5, 1 and 2, each with a limit of its own (a limit is per replica);
- `drift`: the cost doubles after a third of the batches and halves after two thirds;
- `bursts`: 40 full batches, then 60 of a few rows, again and again.

Late: the share of full batches over the target; when settled: without the 300 batches after a start or a change. To
converge: batches until the limit is for the first time within 20 % of the best size, the one whose 99th percentile is
the target. Served: rows a second of model time, as a share of those with the best size. `fixed` has the best size of
the host of speed 1 before any change.
"""

import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rig.results import Measures, Summary, Target, median_of, show, summary
from rig.session import finish, parsed, result_options

from clipper_stream.batching.limits import BatchLimit, Fixed, make_limit

TARGET_S, MAX_ROWS, BATCHES, SETTLING = 0.02, 4096, 6000, 300
NEAR = 0.2
MODELS = {"cheap rows": (0.001, 1e-5), "dear start": (0.004, 5e-5), "dear rows": (0.0005, 5e-4)}
"""Fixed seconds, seconds a row."""
MEASURES: Measures = {
    "late, share": lambda run: run["late_ratio"],
    "late when settled, share": lambda run: run["settled_late_ratio"],
    "batches to converge": lambda run: run["to_converge"],
    "after doubling": lambda run: run.get("after_doubling"),
    "after halving": lambda run: run.get("after_halving"),
    "served, x the best size": lambda run: run["served_ratio"],
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """Cost of each batch as a multiple of the model's, which batches change it, and which are full."""

    cost: Callable[[int], float]
    full: Callable[[int], bool] = lambda _batch: True
    changes: tuple[int, ...] = (0,)


def _drift(batch: int) -> float:
    return 2.0 if BATCHES // 3 <= batch < 2 * BATCHES // 3 else 1.0


SCENARIOS = {
    **{f"steady, speed {speed:g}": Scenario(lambda _batch, speed=speed: 1 / speed) for speed in (0.5, 1.0, 2.0)},
    "drift": Scenario(_drift, changes=(0, BATCHES // 3, 2 * BATCHES // 3)),
    "bursts": Scenario(lambda _batch: 1.0, full=lambda batch: batch % 100 < 40),
}


def main() -> None:
    parser = result_options(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parsed(parser, {"seeds": 1})
    runs = [
        {"round": seed, "system": f"{scenario}, {kind}", "model": name, **simulated(name, scenario, kind, seed)}
        for scenario in SCENARIOS
        for kind in ("fixed", "aimd")
        for name in MODELS
        for seed in range(options.seeds)
    ]
    found = summary(runs, MEASURES)
    show("median (least to most) of three models and three seeds", found, runs)
    finish(options, runs, found, targets(found))


def noise(draw: random.Random) -> float:
    found = draw.lognormvariate(0.0, 0.05)
    if draw.random() < 0.02:
        found *= 1 + draw.expovariate(4)
    return 3 * found if draw.random() < 0.002 else found


_MANY = random.Random(0)
P99_NOISE = statistics.quantiles((noise(_MANY) for _ in range(100_000)), n=100)[98]


def best_rows(name: str, cost: float) -> int:
    """The size whose 99th percentile is the target."""
    fixed_s, per_row_s = MODELS[name]
    return max(1, min(MAX_ROWS, int((TARGET_S / P99_NOISE / cost - fixed_s) / per_row_s)))


def simulated(name: str, scenario_name: str, kind: str, seed: int) -> dict[str, Any]:
    scenario, draw = SCENARIOS[scenario_name], random.Random(seed)
    limit = Fixed(best_rows(name, 1.0)) if kind == "fixed" else make_limit(kind, TARGET_S, MAX_ROWS)
    seen = list(batches(name, scenario, limit, draw))
    full = [one for one in seen if one[2]]
    settled = [one for one in full if all(not 0 <= one[0] - change < SETTLING for change in scenario.changes)]
    figures = {
        "late_ratio": late_ratio(full),
        "settled_late_ratio": late_ratio(settled),
        "served_ratio": round(served(full) / served_by_best(name, scenario, full), 4),
    }
    names = ("to_converge", "after_doubling", "after_halving")
    ends = (*scenario.changes[1:], BATCHES)
    return figures | {
        column: converged(name, scenario, seen[change:end])
        for column, change, end in zip(names, scenario.changes, ends, strict=False)
    }


Seen = tuple[int, int, bool, float, float]
"""Number, rows in the limit's force, whether it was full, latency and its expectation in seconds."""


def batches(name: str, scenario: Scenario, limit: BatchLimit, draw: random.Random) -> Iterator[Seen]:
    fixed_s, per_row_s = MODELS[name]
    for number in range(BATCHES):
        full = scenario.full(number)
        rows = limit.rows if full else min(limit.rows, draw.randint(1, 5))
        cost_s = scenario.cost(number) * (fixed_s + rows * per_row_s)
        latency_s = cost_s * noise(draw)
        yield number, limit.rows, full, latency_s, cost_s
        limit.observe(rows, latency_s)


def late_ratio(seen: list[Seen]) -> float:
    return round(sum(one[3] > TARGET_S for one in seen) / len(seen), 5)


def served(seen: list[Seen]) -> float:
    return sum(one[1] for one in seen) / sum(one[4] for one in seen)


def served_by_best(name: str, scenario: Scenario, seen: list[Seen]) -> float:
    fixed_s, per_row_s = MODELS[name]
    best = [(best_rows(name, scenario.cost(one[0])), scenario.cost(one[0])) for one in seen]
    return sum(rows for rows, _ in best) / sum(cost * (fixed_s + rows * per_row_s) for rows, cost in best)


def converged(name: str, scenario: Scenario, seen: list[Seen]) -> int | None:
    """Batches until the limit is near the best size; None: never."""
    best = best_rows(name, scenario.cost(seen[0][0]))
    return next((count for count, one in enumerate(seen) if abs(one[1] - best) <= max(1, NEAR * best)), None)


def targets(found: Summary) -> list[Target]:
    rows = [row for row in found if row.endswith(", aimd")]
    late = max(median_of(found, row, "late when settled, share", "most") or 0.0 for row in rows)
    least = min(median_of(found, row, "served, x the best size") or 0.0 for row in rows)
    return [
        Target(
            benchmark="C",
            what="simulated, aimd: late batches when settled, most, share",
            value=late,
            sense="<=",
            bound=0.01,
        ),
        Target(
            benchmark="C",
            what="simulated, aimd: rows served, x the best size, least of the medians",
            value=least,
            sense=">=",
            bound=0.95,
        ),
    ]


if __name__ == "__main__":
    main()
