"""Candidates that stay as they are: every estimator, in one way through the log for all of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clipper_stream.evaluation.candidate_sums import CandidateSums
from clipper_stream.evaluation.candidates.candidate import StationaryCandidate
from clipper_stream.evaluation.estimators.outcome_model import OutcomeSums, with_predictions
from clipper_stream.evaluation.estimators.propensity_matrices import choices_of
from clipper_stream.evaluation.estimators.registry import doubly_robust, make_estimators
from clipper_stream.evaluation.estimators.support import SupportSums
from clipper_stream.evaluation.log.columns import DecisionColumns, Floats
from clipper_stream.evaluation.log_summary import LogSummary, anybody
from clipper_stream.evaluation.question import Log, Question

ON_POLICY = "on_policy"


class _Predicted(NamedTuple):
    """A candidate, the log's models with those that it adds, and the predicted losses of all of them."""

    candidate: StationaryCandidate
    models: tuple[str, ...]
    predictions: Floats


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
    (on_policy,) = make_estimators([ON_POLICY], decisions=found.used)
    names = [name for name in question.estimators if name != ON_POLICY]
    estimators, contexts = make_estimators(names, decisions=found.used), len(found.outline.contexts)
    prepared = [_predicted(candidate, log, found) for candidate in candidates]
    logged = CandidateSums(outline=found.outline, models=found.outline.models)
    tallies = [CandidateSums(outline=found.outline, models=each.models) for each in prepared]
    for columns in found.usable(log):
        choices = choices_of(columns, anybody(columns), found.shares(columns, question))
        logged.add_estimates({ON_POLICY: on_policy.sums(choices)})
        _add_answers(logged, columns.take(columns.with_feedback))
        for each, tally in zip(prepared, tallies, strict=True):
            aimed, target = each.candidate.targeted(columns)
            bare = choices_of(aimed, target, found.shares(aimed, question))
            choices = with_predictions(bare, each.predictions)
            tally.add_estimates({one.name: one.sums(choices) for one in estimators})
            tally.support = tally.support.merged(SupportSums.of(choices, contexts))
            known, terms = aimed.take(aimed.with_feedback), doubly_robust(choices)
            assert terms.base is not None
            assert terms.numerator is not None
            tally.add_losses(known, terms.base + terms.numerator, np.ones(len(known)), choices.target)
    return logged, tallies


def _predicted(candidate: StationaryCandidate, log: Log, found: LogSummary) -> _Predicted:
    """Goes through the log once more for a candidate that adds a column."""
    models = candidate.targeted(DecisionColumns.empty(found.outline.models)).columns.models
    if models == found.outline.models:
        return _Predicted(candidate, models, found.predictions)
    contexts = len(found.outline.contexts)
    sums = OutcomeSums.empty(contexts, len(models))
    for columns in found.usable(log):
        wide = candidate.targeted(columns).columns
        sums = sums.merged(OutcomeSums.of(choices_of(wide, anybody(wide)), contexts))
    return _Predicted(candidate, models, sums.table())


def _add_answers(logged: CandidateSums, known: DecisionColumns) -> None:
    heard = ~np.isnan(known.answer_loss)
    served = known.served / np.maximum(1, known.served.sum(axis=1))[:, None]
    logged.add_losses(known, np.where(heard, known.answer_loss, 0.0), heard.astype(np.float64), served)
