"""What is summed about one candidate on the way through a log, whoever it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from clipper_stream.evaluation.estimators.block_sums import AdditiveSums, BlockSums, summed, totals
from clipper_stream.evaluation.estimators.support import SupportSums
from clipper_stream.evaluation.log.columns import DecisionColumns, Floats
from clipper_stream.evaluation.log_summary import LogOutline, Timeline
from clipper_stream.evaluation.results import Series


@dataclass(frozen=True, slots=True, kw_only=True)
class BinnedSums(AdditiveSums):
    """Losses and shares by span of time or by context: what plots and tables by context are made of.

    Attributes:
        weight: What the losses are divided by, (B,).
        loss: Sum of weighed losses, (B,).
        squares: Sum of their squares, (B,).
        shares: Sum of the probabilities of serving each model, (B, M).
        decisions: How many the shares are of, (B,).
    """

    weight: Floats
    loss: Floats
    squares: Floats
    shares: Floats
    decisions: Floats

    @classmethod
    def empty(cls, bins: int, models: int = 0) -> Self:
        none = np.zeros(bins)
        return cls(weight=none, loss=none, squares=none, shares=np.zeros((bins, models)), decisions=none)

    @classmethod
    def of(cls, place: np.ndarray, bins: int, loss: Floats, weight: Floats, shares: Floats | None = None) -> Self:
        """Return the sums of n decisions, by bin.

        Args:
            place: Bin of each, (n,).
            bins: How many there are.
            loss: Weighed losses, (n,).
            weight: What they are weighed with, (n,).
            shares: Probability of serving each model, (n, M).
        """
        return cls(
            weight=summed(weight, place, bins),
            loss=summed(loss, place, bins),
            squares=summed(loss * loss, place, bins),
            shares=np.zeros((bins, 0)) if shares is None else totals(place, bins, shares),
            decisions=summed(None, place, bins),
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


@dataclass(slots=True, kw_only=True)
class CandidateSums:
    """Sums over a log for one candidate, or for what was logged.

    Attributes:
        outline: Of the log.
        models: Columns that can be served.
        estimates: By estimator.
        support: What the estimates of a candidate that does not learn stand on.
        spans: By span of time.
        contexts: By context.
        differences: To the logged loss, by context.
    """

    outline: LogOutline
    models: tuple[str, ...]
    estimates: dict[str, BlockSums] = field(default_factory=dict)
    support: SupportSums = field(init=False)
    spans: BinnedSums = field(init=False)
    contexts: BinnedSums = field(init=False)
    differences: BinnedSums = field(init=False)

    def __post_init__(self) -> None:
        contexts, models = len(self.outline.contexts), len(self.models)
        self.support = SupportSums.empty(contexts, models)
        self.spans = BinnedSums.empty(self.outline.timeline.spans, models)
        self.contexts = self.differences = BinnedSums.empty(contexts)

    def add_estimates(self, parts: Mapping[str, BlockSums]) -> None:
        """Add the sums of another chunk, by estimator."""
        for name, part in parts.items():
            self.estimates[name] = self.estimates.get(name, BlockSums.empty()).merged(part)

    def add_losses(self, columns: DecisionColumns, loss: Floats, weight: Floats, shares: Floats) -> None:
        """Add losses of decisions with feedback, by span and by context.

        Args:
            columns: n decisions, all with feedback.
            loss: Weighed loss of each, (n,).
            weight: What it is weighed with; 0: nothing is known, (n,).
            shares: Probability of serving each model, (n, M).
        """
        timeline, contexts = self.outline.timeline, len(self.outline.contexts)
        span = timeline.span_of(columns.at_ms)
        self.spans = self.spans.merged(BinnedSums.of(span, timeline.spans, loss, weight, shares))
        self.contexts = self.contexts.merged(BinnedSums.of(columns.context, contexts, loss, weight))
        known = (weight > 0.0) & ~np.isnan(columns.answer_loss)
        apart = np.where(known, loss - weight * np.nan_to_num(columns.answer_loss), 0.0)
        weights = np.where(known, weight, 0.0)
        self.differences = self.differences.merged(BinnedSums.of(columns.context, contexts, apart, weights))
