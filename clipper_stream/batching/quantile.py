"""The batch limit from a line through the 99th percentile of latencies (Clipper, section 4.3.1), kept up to date.

Rules of this file:
- Clipper fits the line once; here it is fitted again as batches come, over the last 64 batches of each octave of sizes
  (1, 2-3, 4-7, ...). A window over all batches would forget every size but the one in use, and with it the slope.
- A latency of more rows than the limit is forgotten after 512 batches. No batch comes that could replace it, and a
  model that was slow for a while would stay small for ever.
- AIMD explores until 8 sizes (or 64 batches) are seen, and while the line of one row is over the target already.
- Only a full or a late batch changes the limit. A fast batch of fewer rows is remembered for the next fit; a late one
  alone is a pause of the host, as in `aimd`, and is not.
- Growth follows batches really sent: by at most a quarter past the batch, however far the line reaches; while
  exploring by what AIMD allows, at most twice the batch.
- The line is a quantile regression with one regressor. For a given slope the best intercept is a quantile of the
  residuals, and what is left is a convex function of the slope alone: a search in one dimension, no linear program.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipper_stream.batching.aimd import RelaxedTarget
from clipper_stream.batching.limit import checked_rows, checked_target

LEVEL = 0.99
"""One batch in a hundred may miss the target, as in the paper."""
MIN_SIZES = 8
"""Distinct sizes before the first line: AIMD's first eight, where rows are cheap, are 1, 2, 4, ..., 128."""
EXPLORED_BATCHES = 64
"""Enough for the first line whatever the sizes: a model that takes the whole target for 4 rows never shows eight."""
REFRESH_BATCHES = 16
"""Batches between two fits: a fit takes about 0.5 ms, so that this is well below 1 % of 20 ms batches."""
FORGET_BATCHES = 512
"""Batches after which a latency above the limit is tried again: some seconds, a few late batches each time at most."""
OCTAVE_BATCHES = 64
"""Batches remembered of each octave of sizes."""
_CANDIDATES = 17
_ROUNDS = 7  # each round narrows the slope to an eighth: 8^-7 of the first interval is below the noise of any clock


class QuantileRegression:
    """The most rows whose 99th percentile of latency, on a line fitted to recent batches, is within the target.

    A pause of the host does not lower the limit, as it does with AIMD, unless pauses are more than one in a hundred.

    Args:
        target_s: Latency in seconds that 99 of 100 batches should stay below, above 0.
        max_rows: The limit never exceeds it, at least 1.

    Raises:
        InvalidSetting: an argument lies outside its bound.

    >>> limit = QuantileRegression(target_s=0.02, max_rows=4096)
    >>> for _ in range(60):
    ...     limit.observe(limit.rows, latency_s=0.002 + 0.0001 * limit.rows)
    >>> 175 <= limit.rows <= 180
    True

    Source: Clipper, section 4.3.1 (quantile regression of the 99th percentile).
    """

    __slots__ = ("_explorer", "_late_before", "_line_rows", "_max_rows", "_recent", "_rows", "_target_s", "_unfitted")

    def __init__(self, target_s: float, max_rows: int) -> None:
        self._target_s = checked_target(target_s)
        self._max_rows = checked_rows("max_rows", max_rows)
        self._explorer = RelaxedTarget(target_s, max_rows)
        self._rows = self._explorer.rows
        self._late_before = False
        self._line_rows: int | None = None
        self._recent = _RecentBatches(max_rows)
        self._unfitted = 0

    @property
    def target_s(self) -> float:
        """The target in force: that of the exploration, as long as there is no line."""
        return self._explorer.target_s if self._line_rows is None else self._target_s

    @property
    def rows(self) -> int:
        """The largest batch to send now, in [1, max_rows]."""
        return self._rows

    def observe(self, rows: int, latency_s: float) -> None:
        """Learn from one batch; as `BatchLimit.observe`."""
        if not 0.0 <= latency_s < math.inf:
            return  # no latency: a clock was set back
        full = rows >= self._rows
        late = latency_s >= self._target_s
        lone, self._late_before = late and not self._late_before, late
        if lone and not full:
            return
        self._recent.add(rows, latency_s)
        self._unfitted += 1
        if full or late:
            self._refresh()
            self._rows = self._next_rows(rows, latency_s, late=late)

    def _next_rows(self, rows: int, latency_s: float, *, late: bool) -> int:
        if self._line_rows is None:
            self._explorer.observe(rows, latency_s)
            return self._explorer.rows
        grown = self._rows if late else rows + rows // 4 + 1
        return min(self._line_rows, grown)

    def _refresh(self) -> None:
        """Fit the line again when it is due; fall back to exploring when there is none."""
        if self._unfitted < (MIN_SIZES if self._line_rows is None else REFRESH_BATCHES):
            return
        self._unfitted = 0
        before, self._line_rows = self._line_rows, self._fitted_rows()
        if before is not None and self._line_rows is None:
            self._explorer = RelaxedTarget(self._target_s, self._max_rows, start_rows=self._rows)

    def _fitted_rows(self) -> int | None:
        rows, latency_s = self._recent.arrays(self._rows)
        if len(rows) < EXPLORED_BATCHES and len(np.unique(rows)) < MIN_SIZES:
            return None
        return fit_line(rows, latency_s, LEVEL).rows_within(self._target_s, self._max_rows)


class _RecentBatches:
    """Sizes and latencies of the last batches of each octave, in memory of a fixed size."""

    __slots__ = ("_added", "_latency_s", "_next_place", "_number", "_rows")

    def __init__(self, max_rows: int) -> None:
        shape = (max_rows.bit_length(), OCTAVE_BATCHES)
        self._rows: NDArray[np.float64] = np.zeros(shape)  # 0: an empty place
        self._latency_s: NDArray[np.float64] = np.zeros(shape)
        self._number = np.zeros(shape, np.int64)
        self._next_place = [0] * shape[0]
        self._added = 0

    def add(self, rows: int, latency_s: float) -> None:
        octave = min(rows.bit_length(), len(self._next_place)) - 1
        place = self._next_place[octave]
        self._next_place[octave] = (place + 1) % OCTAVE_BATCHES
        self._added += 1
        self._rows[octave, place] = rows
        self._latency_s[octave, place] = latency_s
        self._number[octave, place] = self._added

    def arrays(self, limit_rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sizes and latencies in seconds, both of shape [n], without old batches of more rows than the limit."""
        old = self._number <= self._added - FORGET_BATCHES
        known = (self._rows > 0) & ~(old & (self._rows > limit_rows))
        return self._rows[known], self._latency_s[known]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyLine:
    """Latency as `per_row_s * rows + fixed_s`.

    >>> LatencyLine(per_row_s=0.0001, fixed_s=0.002).rows_within(0.02, max_rows=4096)
    180
    """

    per_row_s: float
    fixed_s: float

    def rows_within(self, target_s: float, max_rows: int) -> int | None:
        """The most rows whose latency on the line is at most the target; None when not even one row's is."""
        if self.per_row_s + self.fixed_s > target_s:
            return None
        spare_s = target_s - self.fixed_s
        return max_rows if spare_s >= max_rows * self.per_row_s else max(1, int(spare_s / self.per_row_s))


def fit_line(rows: NDArray[np.float64], latency_s: NDArray[np.float64], level: float) -> LatencyLine:
    """The line that minimises the pinball loss, among those with slope and intercept of at least 0.

    Args:
        rows: Sizes of the batches, shape [n], each at least 1, n at least 1.
        latency_s: Their latencies in seconds, shape [n].
        level: The quantile, in (0, 1); 0.99 leaves one batch in a hundred above the line.

    >>> line = fit_line(np.array([1.0, 2.0, 4.0]), np.array([0.003, 0.004, 0.006]), level=0.99)
    >>> round(line.per_row_s, 5), round(line.fixed_s, 5)
    (0.001, 0.002)

    Source: Koenker and Bassett, Regression Quantiles, Econometrica 46 (1978); Clipper, section 4.3.1.
    """
    low, high = 0.0, float(np.max(latency_s / rows))  # steeper lines lie above every point already
    rank = math.ceil(level * len(rows)) - 1
    for _ in range(_ROUNDS):
        slopes = np.linspace(low, high, _CANDIDATES)
        intercepts, losses = _profile(slopes, rows, latency_s, level, rank)
        best = int(np.argmin(losses))
        low, high = float(slopes[max(0, best - 1)]), float(slopes[min(_CANDIDATES - 1, best + 1)])
    return LatencyLine(per_row_s=float(slopes[best]), fixed_s=float(intercepts[best]))


def _profile(
    slopes: NDArray[np.float64], rows: NDArray[np.float64], latency_s: NDArray[np.float64], level: float, rank: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Best intercept of each slope, and the pinball loss with it; both of shape [slopes]."""
    residuals = latency_s - slopes[:, None] * rows
    intercepts = np.maximum(0.0, np.partition(residuals, rank, axis=1)[:, rank])
    above = residuals - intercepts[:, None]
    return intercepts, np.maximum(level * above, (level - 1.0) * above).sum(axis=1)
