"""The static batch sizes that serve most while their 99th percentile is in time, found by trying."""

import math
from typing import Any

from rig.engines import EngineRun, Feed, run_engine

from clipper_stream.batching.limit import Fixed

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
