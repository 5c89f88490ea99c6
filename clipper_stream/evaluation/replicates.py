"""Candidates that learn on the way: the log is walked in the order of time, several times with other draws.

Rules of this file:
- A course is one way through the log. Each has its own estimate and its own interval; what is reported is the mean of
  the estimates, and an interval that holds all of their intervals: how far draws move the estimate is part of it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from clipper_stream.evaluation.accumulators import CandidateSums
from clipper_stream.evaluation.candidates.learning_policy import LearningPolicy
from clipper_stream.evaluation.estimators.block_sums import BlockSums
from clipper_stream.evaluation.estimators.blocks import blocks_of
from clipper_stream.evaluation.estimators.estimator import Terms
from clipper_stream.evaluation.estimators.propensity_matrices import Choices
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.known_losses import known_losses
from clipper_stream.evaluation.log_summary import LogSummary
from clipper_stream.evaluation.question import Log, Question
from clipper_stream.evaluation.sequential.exact_simulation import simulate
from clipper_stream.evaluation.sequential.rejection_sampling import reject
from clipper_stream.evaluation.sequential.replay_loop import ReplayRun
from clipper_stream.evaluation.sequential.sequential_dr import sequential_dr

SIMULATION, SEQUENTIAL_DR, REJECTION = "simulation", "sequential_dr", "rejection"
MOSTLY = 0.95
"""Of the decisions with feedback: where so many hold the losses of all models, nothing has to be estimated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicate:
    """One replay of the log with one sequence of draws.

    Attributes:
        tally: Its sums, by the way in which the log was walked.
        learned: Feedbacks that the candidate learned from.
        known: Decisions that say something about it.
        clipped: Decisions that should have counted more than they can.
    """

    tally: CandidateSums
    learned: int
    known: int
    clipped: int


def full_information_ratio(log: Log, candidate: LearningPolicy, found: LogSummary) -> float:
    """Share of the decisions with feedback of which the losses of all of the candidate's models are known."""
    whole = 0
    for columns in found.usable(log):
        whole += int((known_losses(columns.of_models(candidate.models)).weight > 0.0).all(axis=1).sum())
    return whole / found.used


def run_replicates(
    log: Log, candidate: LearningPolicy, question: Question, found: LogSummary
) -> dict[str, list[Replicate]]:
    """Replay a learning candidate, and return its replicates by method; the first method is to be read first."""
    share = full_information_ratio(log, candidate, found)
    together = bool(candidate.learner().standing(None, 0).together)
    ways = [SIMULATION] if share >= MOSTLY or together else [SEQUENTIAL_DR, REJECTION]
    if ways[0] != SIMULATION and share > 0.0:
        ways.append(SIMULATION)
    return {
        way: [
            _course(way, log, candidate, question, found, question.seed + number) for number in range(question.courses)
        ]
        for way in ways
    }


def _course(
    way: str, log: Log, candidate: LearningPolicy, question: Question, found: LogSummary, seed: int
) -> Replicate:
    tally = CandidateSums(outline=found.outline, models=candidate.models)
    learned = known = clipped = 0
    for columns, run in _paired(found, log, _walk(way, candidate, question, found, seed)):
        counts = run.denominator > 0.0
        tally.add_estimates({way: BlockSums.of(*terms_and_choices(run, columns, candidate.models))})
        tally.add_losses(columns.take(counts), run.numerator[counts], run.denominator[counts], run.target[counts])
        learned += int(run.learned.sum())
        known += int(counts.sum())
        clipped += int(run.clipped.sum())
    return Replicate(tally=tally, learned=learned, known=known, clipped=clipped)


def _paired(
    found: LogSummary, log: Log, walk: Callable[[Iterator[DecisionColumns]], Iterator[ReplayRun]]
) -> Iterator[tuple[DecisionColumns, ReplayRun]]:
    """Each chunk with its run; a chunk is kept until its run has come."""
    waiting: list[DecisionColumns] = []

    def chunks() -> Iterator[DecisionColumns]:
        for columns in found.usable(log):
            waiting.append(columns)
            yield columns

    for run in walk(chunks()):
        yield waiting.pop(0), run


def _walk(
    way: str, candidate: LearningPolicy, question: Question, found: LogSummary, seed: int
) -> Callable[[Iterator[DecisionColumns]], Iterator[ReplayRun]]:
    if way == SIMULATION:
        return lambda chunks: simulate(
            chunks, candidate, seed=seed, answering=question.answering, trials=question.trials
        )
    if way == REJECTION:
        return lambda chunks: reject(chunks, candidate, ratio=found.least_propensity, seed=seed)
    return lambda chunks: sequential_dr(chunks, candidate, seed=seed)


def mean_sums(courses: Sequence[Replicate], way: str) -> BlockSums:
    """The sums of all courses together: their mean, with the spread of a single one."""
    sums = [course.tally.estimates[way] for course in courses]
    return BlockSums(
        decisions=sums[0].decisions,
        blocks=np.asarray(sum(each.blocks for each in sums)) / len(sums),
        squares=sum(each.squares for each in sums) / len(sums),
    )


def terms_and_choices(run: ReplayRun, columns: DecisionColumns, models: Sequence[str]) -> tuple[Terms, Choices]:
    """The decisions of a run that say something.

    Args:
        run: What a candidate did with these columns.
        columns: The same that it was given.
        models: The candidate's, in its order.

    Returns:
        Terms whose value is the run's loss, and what the candidate would have chosen: for `BlockSums` and `Support`.

    >>> from clipper_stream.evaluation.log.arrays import logged
    >>> from clipper_stream.evaluation.candidates.candidate_text import parse_candidate
    >>> from clipper_stream.evaluation.estimators.block_sums import BlockSums
    >>> from clipper_stream.evaluation.sequential.exact_simulation import simulate
    >>> columns = logged([[1.0, 1.0]] * 2, [[0.0, 1.0]] * 2)
    >>> run = next(simulate([columns], parse_candidate("exp3", columns.models)))
    >>> BlockSums.of(*terms_and_choices(run, columns, columns.models)).value
    0.5
    """
    rows = run.denominator > 0.0
    known = known_losses(columns.of_models(models))
    terms = Terms(numerator=run.numerator[rows], denominator=run.denominator[rows])
    choices = Choices(
        weight=known.weight[rows],
        loss=known.loss[rows],
        target=run.target[rows],
        predicted=None,
        answer_loss=columns.answer_loss[rows],
        share=None,
        block=blocks_of(columns)[rows],
    )
    return terms, choices
