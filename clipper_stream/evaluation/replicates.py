"""Candidates that learn on the way: the log is walked in the order of time, several times with other draws.

Rules of this file:
- A course is one way through the log. Each has its own estimate and its own interval; what is reported is the mean of
  the estimates, and an interval that holds all of their intervals: how far draws move the estimate is part of it.
"""

from collections.abc import Iterator
from itertools import tee
from typing import NamedTuple

import numpy as np

from clipper_stream.evaluation.candidate_sums import ON_POLICY, CandidateSums
from clipper_stream.evaluation.candidates.candidate import LearningPolicy, member_rows
from clipper_stream.evaluation.estimators.block_sums import BlockSums, Terms, blocks_of, plus
from clipper_stream.evaluation.estimators.propensity_matrices import choices_of, row_sums
from clipper_stream.evaluation.estimators.registry import make_estimators
from clipper_stream.evaluation.estimators.support import FirstAsked, SupportSums
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.known_losses import known_losses
from clipper_stream.evaluation.log_summary import LogSummary, anybody
from clipper_stream.evaluation.question import Log, Question
from clipper_stream.evaluation.sequential.exact_simulation import simulate
from clipper_stream.evaluation.sequential.rejection_sampling import reject

SIMULATION, REJECTION = "simulation", "rejection"
MOSTLY = 0.95
"""Of the decisions with feedback: where so many hold the losses of all models, nothing has to be estimated."""


class LearningBasis(NamedTuple):
    """What a log holds of the decisions that count for a learning candidate.

    Of the `whole` ones the losses of all of its models are known; none was scored with less than `least_propensity`.
    """

    reference: BlockSums
    whole: int
    least_propensity: float


class Replicate(NamedTuple):
    """One replay of the log with one sequence of draws: its sums, and how many decisions it learned from.

    `known` decisions say something about the candidate. The method is `simulation` or `rejection`.
    """

    method: str
    tally: CandidateSums
    learned: int
    known: int


def run_replicates(log: Log, candidate: LearningPolicy, question: Question, found: LogSummary) -> list[Replicate]:
    """Replay a learning candidate: by simulation where it is exact, or nothing else can be done."""
    basis = learning_basis(log, candidate, found)
    used, together = basis.reference.decisions, candidate.learner().standing(None, 0).together
    method = SIMULATION if basis.whole >= MOSTLY * used or together else REJECTION
    seeds = range(question.seed, question.seed + question.courses)
    return [_course(method, log, candidate, basis, found, seed) for seed in seeds]


def learning_basis(log: Log, candidate: LearningPolicy, found: LogSummary) -> LearningBasis:
    """Go through the log for what a learning candidate can be judged by."""
    (on_policy,) = make_estimators([ON_POLICY])
    reference, whole, heaviest = BlockSums.empty(), 0, 1.0
    for columns in counting_decisions(log, candidate, found):
        choices = choices_of(columns, anybody(columns))
        reference = reference.merged(on_policy.sums(choices))
        members = member_rows(candidate, columns)
        weight = np.where(members, known_losses(columns.of_models(candidate.models)).weight, 0.0)
        whole += int(((weight > 0.0) | ~members).all(axis=1).sum())
        heaviest = max(heaviest, float(weight.max(initial=1.0)))
    return LearningBasis(reference, whole, 1.0 / heaviest)


def counting_decisions(log: Log, candidate: LearningPolicy, found: LogSummary) -> Iterator[DecisionColumns]:
    """The decisions that count for a learning candidate."""
    first = FirstAsked()
    for columns in found.usable(log):
        yield columns.take(first.supports(*candidate.targeted(columns)))


def _course(
    method: str, log: Log, candidate: LearningPolicy, basis: LearningBasis, found: LogSummary, seed: int
) -> Replicate:
    tally = CandidateSums(outline=found.outline, models=candidate.models, reference=basis.reference)
    contexts, learned, known = len(found.outline.contexts), 0, 0
    chunks, walked = tee(counting_decisions(log, candidate, found))
    runs = (
        simulate(walked, candidate, seed=seed)
        if method == SIMULATION
        else reject(walked, candidate, ratio=basis.least_propensity, seed=seed)
    )
    for columns, run in zip(chunks, runs, strict=True):
        counts = run.denominator > 0.0
        loss, counted = run.numerator[counts], run.denominator[counts]
        said = columns.take(counts)
        tally.add_estimates({method: BlockSums.of(Terms(numerator=loss, denominator=counted), blocks_of(said))})
        tally.add_losses(said, loss, counted, run.target[counts])
        heard, weight = columns.with_feedback, known_losses(columns.of_models(candidate.models)).weight
        importance = run.denominator if method == SIMULATION else row_sums(run.target, weight)
        context, target, scored = columns.context[heard], run.target[heard], weight[heard] > 0.0
        tally.support = plus(tally.support, SupportSums.of_parts(context, contexts, target, scored, importance[heard]))
        learned += int(run.learned.sum())
        known += int(counts.sum())
    return Replicate(method, tally, learned, known)
