"""Does a batch limit that is learned serve as much as the best one that is known, and stay within its target?

    python benchmarks/batching.py --json results/batching.json        # about three minutes
    python benchmarks/batching.py --quick

Clipper's figure 4: five scikit-learn models (`rig/digit_models.py`) and a target of 20 ms for the 99th percentile of
batch latency. Each runs under the host's own engine, in this process and without Kafka, on a backlog that never ends:

- `no batching`: one row a batch;
- `static`: sizes from 1 up by doubling, then finer around the largest that is in time; the two that serve most while
  their 99th percentile is within 95 % of the target compete in the rounds, and the better one of those that keep it
  counts (the one nearest to it when none does);
- `aimd`: the first run begins at one row and shows how long it takes until the limit is within 10 % of
  where it ends; the same limit then goes on in the rounds, as in a host that is up.

Rounds rotate the order of the configurations. Throughput: rows answered a second of wall time. Latency of a batch: in
the model's thread, from the call to its outputs, as the limit sees it; its 99th percentile is that of all rounds.
"""

import argparse
import math
import statistics
from collections import defaultdict
from typing import Any

import rig.one_thread  # noqa: F401 - before numpy is there
from rig.digit_models import DIGIT_MODELS, images
from rig.engines import EngineRun, Feed, backlog, run_engine
from rig.results import Measures, Summary, Target, load_average, median_of, show, single, summary
from rig.session import finish, parsed, result_options, rotated, said

from clipper_stream.batching.limits import BatchLimit, Fixed, make_limit

MAX_ROWS = 4096
"""As a manifest has it when it says nothing else."""
OPEN_ROWS = 4 * MAX_ROWS
LEARNED = "aimd"
NONE, STATIC = "no batching", "static"
NEAR_RATIO = 0.9
QUICK = {"rounds": 1, "seconds": 0.2, "probe": 0.03, "first": 0.3, "models": ["no-op", "linear SVM"]}
MEASURES: Measures = {
    "rows/s": lambda run: run["rows_per_s"],
    "rows a batch": lambda run: run["mean_rows"],
    "batch p50 ms": lambda run: run["p50_ms"],
    "batch p99 ms": lambda run: run["p99_ms"],
    "late batches, share": lambda run: run["late_ratio"],
}
CONVERGENCE: Measures = {
    "batches": lambda run: run["batches"],
    "seconds": lambda run: run["seconds"],
    "rows at the end": lambda run: run["limit"],
}
Run = dict[str, Any]
Latencies = dict[str, list[EngineRun]]


def main() -> None:
    options = arguments()
    feed = backlog(images()[0])
    converged: list[Run] = []
    runs: list[Run] = []
    kept: Latencies = defaultdict(list)
    for name in options.models:
        model = DIGIT_MODELS[name]()
        limits = configurations(name, model, feed, options, converged)
        for number in range(options.rounds):
            runs += [
                measured(number, name, kind, model, limits[kind], feed, options, kept)
                for kind in rotated(list(limits), number)
            ]
    found = summary(runs, MEASURES)
    for row, several in kept.items():
        found[row]["p99 of all rounds, ms"] = pooled(several)
    speed = summary(converged, CONVERGENCE)
    show("from one row to 90 % of the limit that is reached", speed, converged)
    show("median (least to most) of the rounds", found, runs)
    finish(options, [*converged, *runs], {"rounds": found, "convergence": speed}, targets(found, options))


def configurations(
    name: str, model: Any, feed: Feed, options: argparse.Namespace, converged: list[Run]
) -> dict[str, BatchLimit]:
    """What is compared, the learned limit after its first run."""
    limits: dict[str, BatchLimit] = {NONE: Fixed(1)}
    for best in best_sizes(model, feed, options.target, options.probe, MAX_ROWS, OPEN_ROWS):
        limits[f"{STATIC} {best['size']}"] = Fixed(best["size"])
    limits[LEARNED] = make_limit(LEARNED, options.target, MAX_ROWS)
    run = run_engine(model, limits[LEARNED], feed, options.first, open_rows=OPEN_ROWS)
    converged.append(said({"system": name, "load": LEARNED, **convergence(run)}))
    return limits


def convergence(run: EngineRun) -> Run:
    """How long until the limit was for the first time at 90 % of its median over the last third."""
    tail = sorted(batch.limit_rows for batch in run.batches[-max(1, len(run.batches) // 3) :])
    final = tail[len(tail) // 2]
    first = next(number for number, batch in enumerate(run.batches) if batch.limit_rows >= NEAR_RATIO * final)
    return {"batches": first + 1, "seconds": round(run.batches[first].at_s, 3), "limit": final}


def measured(
    number: int,
    name: str,
    kind: str,
    model: Any,
    limit: BatchLimit,
    feed: Feed,
    options: argparse.Namespace,
    kept: Latencies,
) -> Run:
    """One configuration for some seconds."""
    before = load_average()
    run = run_engine(model, limit, feed, options.seconds, open_rows=OPEN_ROWS)
    kept[f"{name}, {kind}"].append(run)
    late = sum(batch.latency_s > options.target for batch in run.batches)
    figures = {
        "rows_per_s": run.rows_per_s,
        "mean_rows": round(statistics.fmean(batch.rows for batch in run.batches), 1),
        "p50_ms": percentile_ms(run, 50),
        "p99_ms": percentile_ms(run, 99),
        "late_ratio": round(late / len(run.batches), 5),
        "batches": len(run.batches),
    }
    return said({"round": number, "system": name, "load": kind, "load_before": before, **figures})


def pooled(several: list[EngineRun]) -> dict[str, Any]:
    """The 99th percentile over the batches of all rounds, as one value of a summary."""
    every = EngineRun([batch for run in several for batch in run.batches])
    return single(percentile_ms(every, 99))


def targets(found: Summary, options: argparse.Namespace) -> list[Target]:
    expected = []
    for name in options.models:
        aimd, static = median_of(found, f"{name}, aimd", "rows/s"), best_static(found, name, options)
        ratio = round(aimd / static, 3) if aimd and static else None
        expected.append(target(f"{name}: rows/s of aimd, x the best static in time", ratio, ">=", 0.95))
        p99_ms = median_of(found, f"{name}, aimd", "p99 of all rounds, ms")
        expected.append(target(f"{name}: p99 of batch latency with aimd, ms", p99_ms, "<=", 1000 * options.target))
    aimd, none = (median_of(found, f"linear SVM, {kind}", "rows/s") for kind in ("aimd", NONE))
    times = round(aimd / none, 2) if aimd and none else None
    return [*expected, target("linear SVM: rows/s of aimd, x no batching", times, ">=", 26.0)]


def target(what: str, value: float | None, sense: Any, bound: float) -> Target:
    return Target(benchmark="C", what=what, value=value, sense=sense, bound=bound)


def best_static(found: Summary, name: str, options: argparse.Namespace) -> float | None:
    """Rows a second of the best static size that was in time; of the one nearest to it when none was."""
    fixed = [measures for row, measures in found.items() if row.startswith(f"{name}, {STATIC}")]
    p99_ms = {measures["rows/s"]["median"]: measures["p99 of all rounds, ms"]["median"] for measures in fixed}
    in_time = [rows_per_s for rows_per_s, p99 in p99_ms.items() if p99 <= 1000 * options.target]
    return max(in_time, default=min(p99_ms, key=lambda rows_per_s: p99_ms[rows_per_s]))


def arguments() -> argparse.Namespace:
    parser = result_options(__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each configuration in each round")
    parser.add_argument("--first", type=float, default=4.0, help="seconds for a learned limit to find its place")
    parser.add_argument("--probe", type=float, default=0.25, help="seconds for each static size in the sweep")
    parser.add_argument("--target", type=float, default=0.02, help="seconds a batch should take at most")
    parser.add_argument("--models", nargs="+", choices=list(DIGIT_MODELS), default=list(DIGIT_MODELS))
    return parsed(parser, QUICK)


FINE = 8
"""Sizes tried between the largest that is in time and twice as many rows."""

MARGIN = 0.95
"""A probe is short: what is just in time there is not in the rounds."""


def percentile_ms(run: EngineRun, percent: float) -> float:
    """Of the batch latencies: the smallest value that so many per cent do not exceed."""
    ordered = sorted(batch.latency_s for batch in run.batches)
    return round(1000 * ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)], 3)


def best_sizes(
    model: Any, feed: Feed, target_s: float, seconds: float, max_rows: int, open_rows: int, count: int = 2
) -> list[dict[str, Any]]:
    """Sizes with rows a second and percentiles, of those in time the `count` that serve most, best first.

    One row when nothing is in time: then no size is.
    """
    tried: list[dict[str, Any]] = []
    size = 1
    while size <= max_rows:
        tried.append(_tried(model, feed, size, seconds, open_rows))
        if tried[-1]["p50_ms"] > 1000 * target_s:
            break
        size *= 2
    start = max((one["size"] for one in tried if one["p50_ms"] <= 1000 * target_s), default=1)
    fine = {min(max_rows, round(start * (4 + step) / FINE)) for step in range(1, 12)} - {one["size"] for one in tried}
    tried += [_tried(model, feed, size, 2 * seconds, open_rows) for size in sorted(fine) if size > 0]
    in_time = [one for one in tried if one["p99_ms"] <= MARGIN * 1000 * target_s] or tried[:1]
    return sorted(in_time, key=lambda one: -one["rows_per_s"])[:count]


def _tried(model: Any, feed: Feed, size: int, seconds: float, open_rows: int) -> dict[str, Any]:
    run = run_engine(model, Fixed(size), feed, seconds, open_rows=open_rows)
    return {
        "size": size,
        "rows_per_s": run.rows_per_s,
        "p50_ms": percentile_ms(run, 50),
        "p99_ms": percentile_ms(run, 99),
    }


if __name__ == "__main__":
    main()
