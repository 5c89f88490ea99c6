"""Candidates that learn on the way: the log is walked in the order of time, several times with other draws.

Rules of this file:
- A course is one way through the log. Each has its own estimate and its own interval; what is reported is the mean of
  the estimates, and an interval that holds all of their intervals: how far draws move the estimate is part of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import tee

from clipper_stream.evaluation.candidate_sums import CandidateSums
from clipper_stream.evaluation.candidates.candidate import LearningPolicy
from clipper_stream.evaluation.estimators.block_sums import BlockSums, Terms, blocks_of, plus
from clipper_stream.evaluation.estimators.propensity_matrices import row_sums
from clipper_stream.evaluation.estimators.support import SupportSums
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.known_losses import known_losses
from clipper_stream.evaluation.log_summary import LogSummary
from clipper_stream.evaluation.question import Log, Question
from clipper_stream.evaluation.sequential.exact_simulation import simulate
from clipper_stream.evaluation.sequential.rejection_sampling import reject
from clipper_stream.evaluation.sequential.replay import ReplayRun

SIMULATION, REJECTION = "simulation", "rejection"
MOSTLY = 0.95
"""Of the decisions with feedback: where so many hold the losses of all models, nothing has to be estimated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicate:
    """One replay of the log with one sequence of draws: its sums, and how many decisions it learned from.

    `known` decisions say something about the candidate.
    """

    tally: CandidateSums
    support: SupportSums
    estimate: BlockSums
    learned: int
    known: int


def run_replicates(
    log: Log, candidate: LearningPolicy, question: Question, found: LogSummary
) -> dict[str, list[Replicate]]:
    """Replay a learning candidate, and return its replicates by method; the first method is to be read first."""
    share = full_information_ratio(log, candidate, found)
    together = bool(candidate.learner().standing(None, 0).together)
    ways = [SIMULATION] if share >= MOSTLY or together else [REJECTION]
    if ways[0] != SIMULATION and share > 0.0:
        ways.append(SIMULATION)
    seeds = range(question.seed, question.seed + question.courses)
    return {way: [_course(way, log, candidate, question, found, seed) for seed in seeds] for way in ways}


def full_information_ratio(log: Log, candidate: LearningPolicy, found: LogSummary) -> float:
    """Share of the decisions with feedback of which the losses of all of the candidate's models are known."""
    whole = 0
    for columns in found.usable(log):
        whole += int((known_losses(columns.of_models(candidate.models)).weight > 0.0).all(axis=1).sum())
    return whole / found.used


def _course(
    way: str, log: Log, candidate: LearningPolicy, question: Question, found: LogSummary, seed: int
) -> Replicate:
    tally, estimate = CandidateSums(outline=found.outline, models=candidate.models), BlockSums.empty()
    contexts, support = len(found.outline.contexts), None
    learned = known = 0
    chunks, walked = tee(found.usable(log))
    for columns, run in zip(chunks, _walk(way, walked, candidate, question, found, seed), strict=True):
        counts = run.denominator > 0.0
        loss, counted = run.numerator[counts], run.denominator[counts]
        said = columns.take(counts)
        estimate = estimate.merged(BlockSums.of(Terms(numerator=loss, denominator=counted), blocks_of(said)))
        tally.add_losses(said, loss, counted, run.target[counts])
        heard, weight = columns.with_feedback, known_losses(columns.of_models(candidate.models)).weight
        importance = run.denominator if way == SIMULATION else row_sums(run.target, weight)
        context, target, scored = columns.context[heard], run.target[heard], weight[heard] > 0.0
        support = plus(support, SupportSums.of_parts(context, contexts, target, scored, importance[heard]))
        learned += int(run.learned.sum())
        known += int(counts.sum())
    assert support is not None
    return Replicate(tally=tally, support=support, estimate=estimate, learned=learned, known=known)


def _walk(
    way: str,
    chunks: Iterator[DecisionColumns],
    candidate: LearningPolicy,
    question: Question,
    found: LogSummary,
    seed: int,
) -> Iterator[ReplayRun]:
    if way == SIMULATION:
        return simulate(chunks, candidate, seed=seed, answering=question.answering)
    return reject(chunks, candidate, ratio=found.least_propensity, seed=seed)
