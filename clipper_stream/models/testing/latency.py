"""How long batches of rising sizes take, and what that says about the batch settings of a manifest."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from clipper_stream.models.model import Model, Rows
from clipper_stream.models.runner import predict_rows
from clipper_stream.models.testing.subject import picked

_TRIES = 7
"""A size is tried so often; the median stands for it, as one of them may have been disturbed."""
_STEP = 2

Timer = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLatency:
    """Latency of batches of one size.

    Attributes:
        rows: Rows of the batch.
        median_ms: Median of the tries, in milliseconds.
        worst_ms: The longest of them, in milliseconds.
        rows_per_s: By the median.
    """

    rows: int
    median_ms: float
    worst_ms: float
    rows_per_s: float


def measure(
    model: Model, rows: Rows, max_rows: int, budget_s: float, timer: Timer = time.perf_counter
) -> tuple[BatchLatency, ...]:
    """Latencies of batches of 1, 2, 4, ... rows: up to `max_rows`, but no further size once `budget_s` is spent.

    One row is measured in any case; the rows are repeated to fill a batch.
    """
    found: list[BatchLatency] = []
    began_s = timer()
    for size in _sizes(max_rows):
        if found and timer() - began_s > budget_s:
            break
        batch = picked(rows, [index % len(rows) for index in range(size)])
        taken_s = [_taken_s(model, batch, timer) for _ in range(_TRIES)]
        middle_s = median(taken_s)
        per_s = size / middle_s if middle_s > 0 else 0.0
        found.append(BatchLatency(rows=size, median_ms=middle_s * 1000, worst_ms=max(taken_s) * 1000, rows_per_s=per_s))
    return tuple(found)


def advice(latencies: Sequence[BatchLatency], target_ms: float) -> str:
    """Return advice about `batch.max_rows`: the size within `target_ms` with the most rows a second.

    >>> row = BatchLatency(rows=1, median_ms=30.0, worst_ms=30.0, rows_per_s=33.0)
    >>> advice([row], 20.0)
    'one row takes 30.00 ms, target_ms is 20: raise batch.target_ms above it, or make the model faster'
    """
    if not latencies:
        return ""
    within = [each for each in latencies if each.median_ms <= target_ms]
    if not within:
        taken_ms = latencies[0].median_ms
        what = f"one row takes {taken_ms:.2f} ms, target_ms is {target_ms:g}"
        return f"{what}: raise batch.target_ms above it, or make the model faster"
    best = max(within, key=lambda each: each.rows_per_s)
    gain = best.rows_per_s / latencies[0].rows_per_s if latencies[0].rows_per_s else 1.0
    what = f"{best.rows} rows take {best.median_ms:.2f} ms, within target_ms = {target_ms:g}"
    if gain < _STEP:
        return f"{what}, but no more rows a second than one by one: batching gains nothing, max_rows = 1 will do"
    limit = f"max_rows = {best.rows} or more" if best is latencies[-1] else f"max_rows = {best.rows}"
    return f"{what}, {gain:.0f} times as many a second as one by one: {limit}"


def _sizes(max_rows: int) -> Iterator[int]:
    size = 1
    while size < max_rows:
        yield size
        size *= _STEP
    yield max_rows


def _taken_s(model: Model, batch: Rows, timer: Timer) -> float:
    began_s = timer()
    predict_rows(model, batch)
    return timer() - began_s
