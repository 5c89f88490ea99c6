"""What is summed about one candidate on the way through a log, whoever it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from clipper_stream.evaluation.estimators.block_sums import BlockSums
from clipper_stream.evaluation.estimators.support import SupportSums
from clipper_stream.evaluation.log.columns import DecisionColumns, Floats
from clipper_stream.evaluation.log_summary import LogOutline
from clipper_stream.evaluation.timeline import BinnedSums


@dataclass(slots=True, kw_only=True)
class CandidateSums:
    """Sums over a log for one candidate, or for what was logged.

    Attributes:
        outline: Of the log.
        models: Columns that can be served.
        estimates: By estimator.
        support: What the estimates stand on; None: not asked for.
        spans: By span of time.
        contexts: By context; the last is for all that are not looked at.
        differences: To the logged loss, by context.
    """

    outline: LogOutline
    models: tuple[str, ...]
    estimates: dict[str, BlockSums] = field(default_factory=dict)
    support: SupportSums | None = None
    spans: BinnedSums | None = None
    contexts: BinnedSums | None = None
    differences: BinnedSums | None = None

    def add_estimates(self, parts: Mapping[str, BlockSums]) -> None:
        """Add the sums of another chunk, by estimator."""
        for name, part in parts.items():
            self.estimates[name] = self.estimates[name].merged(part) if name in self.estimates else part

    def add_support(self, part: SupportSums) -> None:
        """Add the support sums of another chunk."""
        self.support = part if self.support is None else self.support.merged(part)

    def add_losses(self, columns: DecisionColumns, loss: Floats, weight: Floats, shares: Floats) -> None:
        """Losses of decisions with feedback, by span and by context.

        Args:
            columns: n decisions, all with feedback.
            loss: Weighed loss of each, (n,).
            weight: What it is weighed with; 0: nothing is known, (n,).
            shares: Probability of serving each model, (n, M).
        """
        timeline, names = self.outline.timeline, self.outline.contexts
        spans = BinnedSums.of(timeline.span_of(columns.at_ms), timeline.spans, loss, weight, shares)
        self.spans = spans if self.spans is None else self.spans.merged(spans)
        place, bins = context_places(columns, names), len(names) + 1
        none = np.zeros((len(columns), 0))
        contexts = BinnedSums.of(place, bins, loss, weight, none)
        self.contexts = contexts if self.contexts is None else self.contexts.merged(contexts)
        known = (weight > 0.0) & ~np.isnan(columns.answer_loss)
        apart = np.where(known, loss - weight * np.nan_to_num(columns.answer_loss), 0.0)
        differences = BinnedSums.of(place, bins, apart, np.where(known, weight, 0.0), none)
        self.differences = differences if self.differences is None else self.differences.merged(differences)


def context_places(columns: DecisionColumns, names: tuple[str | None, ...]) -> np.ndarray:
    """Place of each decision's context among the names; the number of names for any other, (n,)."""
    place = {name: number for number, name in enumerate(names)}
    table = np.array([place.get(name, len(names)) for name in columns.contexts] or [0], np.int64)
    return table[columns.context]
