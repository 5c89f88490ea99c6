"""What is summed on the way through a log: of candidates that stay as they are, for all and every estimator in one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import NamedTuple, Self

import numpy as np

from clipper_stream.evaluation.candidates.candidate import StationaryCandidate
from clipper_stream.evaluation.estimators.block_sums import AdditiveSums, BlockSums, plus, summed, totals
from clipper_stream.evaluation.estimators.outcome_model import OutcomeSums, with_predictions
from clipper_stream.evaluation.estimators.propensity_matrices import choices_of
from clipper_stream.evaluation.estimators.registry import doubly_robust, make_estimators
from clipper_stream.evaluation.estimators.support import FirstAsked, SupportSums
from clipper_stream.evaluation.log.columns import DecisionColumns, Floats
from clipper_stream.evaluation.log_summary import LogOutline, LogSummary, Timeline, anybody
from clipper_stream.evaluation.question import Log, Question
from clipper_stream.evaluation.results import Series

ON_POLICY = "on_policy"


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
        """Return the sums of n decisions by their bins; arguments are arrays of shape (n,) and (n, M)."""
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

    def series(self, timeline: Timeline, models: tuple[str, ...], unit: float) -> Series:
        """As a report shows it, with losses in this unit; models that are never served are left out."""
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = self.shares / self.decisions[:, None]
        served = [number for number, total in enumerate(self.shares.sum(axis=0)) if total > 0.0]
        return Series(
            at_ms=timeline.middles,
            loss=tuple((unit * np.clip(self.mean, 0.0, 1.0)).tolist()),
            shares={models[number]: tuple(shares[:, number].tolist()) for number in served},
        )


@dataclass(slots=True, kw_only=True)
class CandidateSums:
    """Sums over a log for one candidate, or for what was logged.

    Attributes:
        support: What the estimates stand on; None: of what was logged.
        reference: Logged losses of the decisions that count for the candidate.
        differences: To the logged loss, by context.
    """

    outline: LogOutline
    models: tuple[str, ...]
    estimates: dict[str, BlockSums] = field(default_factory=dict)
    support: SupportSums | None = None
    reference: BlockSums = field(default_factory=BlockSums.empty)
    spans: BinnedSums = field(init=False)
    contexts: BinnedSums = field(init=False)
    differences: BinnedSums = field(init=False)

    def __post_init__(self) -> None:
        self.spans = BinnedSums.empty(self.outline.timeline.spans, len(self.models))
        self.contexts = self.differences = BinnedSums.empty(len(self.outline.contexts))

    def add_estimates(self, parts: Mapping[str, BlockSums]) -> None:
        for name, part in parts.items():
            self.estimates[name] = plus(self.estimates.get(name), part)

    def add_losses(self, columns: DecisionColumns, loss: Floats, weight: Floats, shares: Floats) -> None:
        """Add losses of n decisions with feedback, by span and by context."""
        timeline, contexts = self.outline.timeline, len(self.outline.contexts)
        span = timeline.span_of(columns.at_ms)
        self.spans = self.spans.merged(BinnedSums.of(span, timeline.spans, loss, weight, shares))
        self.contexts = self.contexts.merged(BinnedSums.of(columns.context, contexts, loss, weight))
        known = (weight > 0.0) & ~np.isnan(columns.answer_loss)
        apart = np.where(known, loss - weight * np.nan_to_num(columns.answer_loss), 0.0)
        weights = np.where(known, weight, 0.0)
        self.differences = self.differences.merged(BinnedSums.of(columns.context, contexts, apart, weights))


class _Predicted(NamedTuple):
    """A candidate, the log's models with those that it adds, and the predicted losses of all of them."""

    candidate: StationaryCandidate
    models: tuple[str, ...]
    predictions: Floats


def sum_stationary(
    log: Log, candidates: Sequence[StationaryCandidate], question: Question, found: LogSummary
) -> tuple[CandidateSums, list[CandidateSums]]:
    """Sums of what was logged, and of each candidate, which is asked what it would have done chunk by chunk."""
    (on_policy,) = make_estimators([ON_POLICY])
    names = [name for name in question.estimators if name != ON_POLICY]
    estimators, contexts = make_estimators(names), len(found.outline.contexts)
    prepared = [(_predicted(candidate, log, found), FirstAsked()) for candidate in candidates]
    logged = CandidateSums(outline=found.outline, models=found.outline.models)
    tallies = [CandidateSums(outline=found.outline, models=each.models) for each, _ in prepared]
    for columns in found.usable(log):
        logged.add_estimates({ON_POLICY: on_policy.sums(choices_of(columns, anybody(columns)))})
        _add_answers(logged, columns.take(columns.with_feedback))
        for (each, first), tally in zip(prepared, tallies, strict=True):
            aimed, target = each.candidate.targeted(columns)
            counted = first.supports(aimed, target)
            aimed = aimed.take(counted)
            choices = with_predictions(choices_of(aimed, target[counted]), each.predictions)
            tally.reference = tally.reference.merged(on_policy.sums(choices))
            tally.add_estimates({one.name: one.sums(choices) for one in estimators})
            tally.support = plus(tally.support, SupportSums.of(choices, contexts))
            known, terms = aimed.take(aimed.with_feedback), doubly_robust(choices)
            assert terms.base is not None
            assert terms.numerator is not None
            tally.add_losses(known, terms.base + terms.numerator, np.ones(len(known)), choices.target)
    return logged, tallies


def _predicted(candidate: StationaryCandidate, log: Log, found: LogSummary) -> _Predicted:
    models = candidate.targeted(DecisionColumns.empty(found.outline.models)).columns.models
    if models == found.outline.models:
        return _Predicted(candidate, models, found.predictions)
    contexts = len(found.outline.contexts)
    widened = (candidate.targeted(columns).columns for columns in found.usable(log))
    outcomes = (OutcomeSums.of(choices_of(wide, anybody(wide)), contexts) for wide in widened)
    return _Predicted(candidate, models, reduce(OutcomeSums.merged, outcomes).table())


def _add_answers(logged: CandidateSums, known: DecisionColumns) -> None:
    heard = ~np.isnan(known.answer_loss)
    served = known.served / np.maximum(1, known.served.sum(axis=1))[:, None]
    logged.add_losses(known, np.where(heard, known.answer_loss, 0.0), heard.astype(np.float64), served)
