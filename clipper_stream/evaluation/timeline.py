"""Sums over spans of time and over contexts: what plots and tables by context are made of."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from clipper_stream.evaluation.log.columns import Floats
from clipper_stream.evaluation.results import Series


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The time of a log, cut into spans of equal length.

    Attributes:
        since_ms: Its beginning, milliseconds since the epoch.
        until_ms: Its last decision.
        spans: How many.

    >>> Timeline(since_ms=0, until_ms=100, spans=2).middles
    (25, 75)
    """

    since_ms: int
    until_ms: int
    spans: int

    @property
    def middles(self) -> tuple[int, ...]:
        """Of each span, milliseconds since the epoch."""
        step = (self.until_ms - self.since_ms) / self.spans
        return tuple(int(self.since_ms + step * (number + 0.5)) for number in range(self.spans))

    def span_of(self, at_ms: np.ndarray) -> np.ndarray:
        """Number of the span of each time."""
        length = max(1, self.until_ms - self.since_ms)
        found: np.ndarray = np.clip((at_ms - self.since_ms) * self.spans // length, 0, self.spans - 1)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class BinnedSums:
    """Losses and shares by span or by context; sums of chunks are added.

    Attributes:
        weight: What the losses are divided by, (B,).
        loss: Sum of weighed losses, (B,).
        squares: Sum of squared differences, (B,), or of squared losses.
        shares: Sum of the probabilities of serving each model, (B, M).
        decisions: How many the shares are of, (B,).

    >>> BinnedSums.empty(2, 1).merged(BinnedSums.empty(2, 1)).mean.tolist()
    [nan, nan]
    """

    weight: Floats
    loss: Floats
    squares: Floats
    shares: Floats
    decisions: Floats

    @classmethod
    def empty(cls, bins: int, models: int) -> Self:
        """Return the sums of no decision."""
        none = np.zeros(bins)
        return cls(weight=none, loss=none, squares=none, shares=np.zeros((bins, models)), decisions=none)

    @classmethod
    def of(cls, place: np.ndarray, bins: int, loss: Floats, weight: Floats, shares: Floats) -> Self:
        """Return the sums of n decisions, by bin.

        Args:
            place: Bin of each, (n,).
            bins: How many there are.
            loss: Weighed losses, (n,).
            weight: What they are weighed with, (n,).
            shares: Probability of serving each model, (n, M).
        """
        columns = [summed(place, shares[:, model], bins) for model in range(shares.shape[1])]
        return cls(
            weight=summed(place, weight, bins),
            loss=summed(place, loss, bins),
            squares=summed(place, loss * loss, bins),
            shares=np.column_stack(columns) if columns else np.zeros((bins, 0)),
            decisions=np.bincount(place, minlength=bins).astype(np.float64),
        )

    def merged(self, other: Self) -> Self:
        """Return the sums of both."""
        return type(self)(
            weight=self.weight + other.weight,
            loss=self.loss + other.loss,
            squares=self.squares + other.squares,
            shares=self.shares + other.shares,
            decisions=self.decisions + other.decisions,
        )

    @property
    def mean(self) -> Floats:
        """Mean loss of each bin; NaN where nothing is known."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.loss / self.weight)

    def series(self, timeline: Timeline, models: tuple[str, ...]) -> Series:
        """As a report shows it; models that are never served are left out."""
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = self.shares / self.decisions[:, None]
        served = [number for number, total in enumerate(self.shares.sum(axis=0)) if total > 0.0]
        return Series(
            at_ms=timeline.middles,
            loss=tuple(self.mean.tolist()),
            shares={models[number]: tuple(shares[:, number].tolist()) for number in served},
        )


def summed(place: np.ndarray, values: Floats, bins: int) -> Floats:
    """Sum of the values of each bin, (B,)."""
    return np.bincount(place, values, bins).astype(np.float64, copy=False)
