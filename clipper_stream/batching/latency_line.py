"""A line through a high quantile of latencies: quantile regression with one regressor, exact and in numpy only.

For a given slope the best intercept is a quantile of the residuals, and what is left is a convex function of the slope
alone. So a search in one dimension finds the minimum; no linear program is needed.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

_CANDIDATES = 17
_ROUNDS = 7  # each round narrows the slope to an eighth: 8^-7 of the first interval is below the noise of any clock


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
    rank = ceil(level * len(rows)) - 1
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
