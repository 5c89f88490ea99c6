"""Sequential replay by rejection: the logged decisions that the candidate would have made itself, one after another.

The candidate sees only decisions that were taken, so its course is that of a candidate on a shorter log, exactly:
unbiased, and wasteful. Of n decisions with feedback about c n are taken, c being the acceptance ratio.

Rules of this file:
- Under uniform logging of K models c = 1 / K is the published algorithm. Otherwise it must not exceed the least
  probability with which any model of the candidate was scored (`least_propensity`): one that was logged more often
  is taken so much more seldom.
- With a larger c some decisions should be taken more often than always. They are counted as clipped; what they would
  have weighed is lost, and the estimate leans to the log.
- What is taken keeps its times: the candidate has c times the decisions in as much time, so a delay is that many fewer
  decisions.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from clipper_stream.evaluation.candidates.learning_policy import LearningPolicy
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.known_losses import known_losses
from clipper_stream.evaluation.sequential.acceptance import check_alone, importance, learn, taken
from clipper_stream.evaluation.sequential.candidate_state import CandidateState
from clipper_stream.evaluation.sequential.replay_loop import Progress, ReplayRun, queries_in_order
from clipper_stream.selection.parameters import check_number

_ROUNDING = 1.0 + 1e-9


def least_propensity(columns: DecisionColumns, models: tuple[str, ...]) -> float:
    """The least probability with which one of these models was scored; 1 where none was.

    >>> from clipper_stream.evaluation.log.arrays import logged
    >>> least_propensity(logged([[0.75, 0.0], [0.0, 0.25]], [[0.0, 1.0], [0.0, 1.0]]), ("m0:1", "m1:1"))
    0.25
    """
    largest = known_losses(columns.of_models(models)).weight.max(initial=1.0)
    return float(1.0 / largest)


def reject(
    chunks: Iterable[DecisionColumns],
    candidate: LearningPolicy,
    *,
    ratio: float,
    seed: int = 0,
    progress: Progress | None = None,
) -> Iterator[ReplayRun]:
    """Take what the candidate would have chosen, and let it learn from that.

    Args:
        chunks: A log in the order of time; one chunk is gone through by `at_ms`.
        candidate: What it begins with.
        ratio: The acceptance ratio, in (0, 1]: the least probability in all chunks.
        seed: Of the draws.
        progress: Told how many decisions were gone through.

    Returns:
        The loss is the mean over the decisions taken: those with a denominator of 1.

    >>> from clipper_stream.evaluation.log.arrays import logged
    >>> from clipper_stream.selection.registry import make_policy
    >>> single = LearningPolicy(policy=make_policy("single"), models=("m0:1", "m1:1"))
    >>> columns = logged([[0.5, 0.0], [0.0, 0.5]], [[1.0, 0.0], [0.0, 1.0]])
    >>> [int(run.learned.sum()) for run in reject([columns], single, ratio=0.5)]
    [1]

    Raises:
        InvalidSetting: the ratio is none; the policy serves several models together.

    Source: Li, Chu, Langford and Wang, "Unbiased offline evaluation of contextual-bandit-based news article
    recommendation algorithms", WSDM 2011, algorithm 2 and theorem 1.
    """
    check_number("ratio", ratio, most=1.0, above=0.0)
    learner = candidate.learner()
    check_alone(learner, learner.standing(None, 0))
    for columns in chunks:
        yield _through(columns, learner, ratio, seed)
        if progress is not None:
            progress(len(columns))


def _through(columns: DecisionColumns, learner: CandidateState, ratio: float, seed: int) -> ReplayRun:
    known = known_losses(columns.of_models(learner.models))
    run = ReplayRun.blank(len(columns), len(learner.models))
    weights, losses = known.weight.tolist(), known.loss.tolist()
    for query in queries_in_order(columns, np.any(known.weight, axis=1)):
        row = query.row
        learner.advance(query.at_ms)
        target = learner.standing(*query.place, query.features).target
        run.target[row] = target
        run.clipped[row] = ratio * importance(target, weights[row]) > _ROUNDING
        number = taken(target, weights[row], ratio, query, seed)
        if number is not None:
            run.numerator[row], run.denominator[row], run.learned[row] = losses[row][number], 1.0, True
            learn(learner, target, number, losses[row][number], query)
    return run
