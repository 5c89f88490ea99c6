"""Candidates that stay as they are: every estimator, in one way through the log for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from clipper_stream.evaluation.accumulators import CandidateSums
from clipper_stream.evaluation.candidates.candidate import StationaryCandidate
from clipper_stream.evaluation.estimators.block_sums import BlockSums
from clipper_stream.evaluation.estimators.contexts import Contexts
from clipper_stream.evaluation.estimators.doubly_robust import DoublyRobust
from clipper_stream.evaluation.estimators.estimator import Estimator
from clipper_stream.evaluation.estimators.on_policy import OnPolicy
from clipper_stream.evaluation.estimators.outcome_model import OutcomeModel, OutcomeSums
from clipper_stream.evaluation.estimators.propensity_matrices import Choices, choices_of
from clipper_stream.evaluation.estimators.registry import make_estimators
from clipper_stream.evaluation.estimators.support import SupportSums
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log_summary import LogSummary, anybody
from clipper_stream.evaluation.question import Log, Question


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedCandidate:
    """A candidate with predicted losses for all columns that it may add to a log's.

    Attributes:
        candidate: Who.
        models: Columns of the log, and those that it adds.
        outcome: Predicted losses of these.
    """

    candidate: StationaryCandidate
    models: tuple[str, ...]
    outcome: OutcomeModel

    @classmethod
    def of(cls, candidate: StationaryCandidate, log: Log, found: LogSummary) -> Self:
        """Goes through the log once more for one that adds a column."""
        models = candidate.targeted(DecisionColumns.empty(found.outline.models)).columns.models
        if models == found.outline.models:
            return cls(candidate=candidate, models=models, outcome=found.outcome)
        sums = OutcomeSums.empty(len(models))
        for columns in found.usable(log):
            wide = candidate.targeted(columns).columns
            sums = sums.merged(OutcomeSums.of(choices_of(wide, anybody(wide)), Contexts.of(wide)))
        return cls(candidate=candidate, models=models, outcome=sums.outcome())


def sum_stationary(
    log: Log, candidates: Sequence[StationaryCandidate], question: Question, found: LogSummary
) -> tuple[CandidateSums, list[CandidateSums]]:
    """Sums of what was logged, and of each candidate.

    Args:
        log: Begins anew.
        candidates: Each is asked what it would have done, chunk by chunk.
        question: How.
        found: What the log holds.
    """
    names = [name for name in question.estimators if name != OnPolicy.name]
    estimators = make_estimators(names, decisions=found.used)
    prepared = [PredictedCandidate.of(candidate, log, found) for candidate in candidates]
    logged = CandidateSums(outline=found.outline, models=found.outline.models)
    tallies = [CandidateSums(outline=found.outline, models=each.models) for each in prepared]
    for columns in found.usable(log):
        _add_logged(logged, columns, question, found)
        for each, tally in zip(prepared, tallies, strict=True):
            _add(tally, each, columns, estimators, question, found)
    return logged, tallies


def _add_logged(tally: CandidateSums, columns: DecisionColumns, question: Question, found: LogSummary) -> None:
    choices = choices_of(columns, anybody(columns), censoring=found.shares(columns, question))
    tally.add_estimates({OnPolicy.name: BlockSums.of(OnPolicy().terms(choices), choices)})
    known = columns.take(columns.with_feedback)
    heard = ~np.isnan(known.answer_loss)
    served = known.served / np.maximum(1, known.served.sum(axis=1))[:, None]
    tally.add_losses(known, np.where(heard, known.answer_loss, 0.0), heard.astype(np.float64), served)


def _add(
    tally: CandidateSums,
    each: PredictedCandidate,
    columns: DecisionColumns,
    estimators: Sequence[Estimator],
    question: Question,
    found: LogSummary,
) -> None:
    aimed = each.candidate.targeted(columns)
    bare = choices_of(aimed.columns, aimed.target, censoring=found.shares(aimed.columns, question))
    contexts = Contexts.of(aimed.columns)
    choices = each.outcome.predicted(bare, contexts)
    tally.add_estimates({one.name: BlockSums.of(one.terms(choices), choices) for one in estimators})
    tally.add_support(SupportSums.of(choices, contexts))
    known = aimed.columns.take(aimed.columns.with_feedback)
    tally.add_losses(known, _doubly_robust(choices), np.ones(len(known)), choices.target)


def _doubly_robust(choices: Choices) -> np.ndarray:
    terms = DoublyRobust().terms(choices)
    assert terms.base is not None
    assert terms.numerator is not None
    return np.asarray(terms.base + terms.numerator)
