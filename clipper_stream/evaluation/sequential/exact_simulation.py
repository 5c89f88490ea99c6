"""Exact simulation: what a learning policy would have done where the log holds the loss of every model.

The policy makes its own choices, sees the losses of those that it chose, when the feedback really came, and goes on
from what it has learned. No loss is guessed, and none is weighed with what the log happened to ask.

Rules of this file:
- Decisions of which not all losses are known do not exist for the candidate. Where only audits ask all models, they
  are a sample: each counts with 1 / its probability, and the candidate learns from so many fewer feedbacks than it
  would have; the later it learns, the better it really is.
- The loss of a decision is the expectation over the candidate's choice. The draw decides only what it learns.
- An ensemble is scored by the combination of the logged outputs, with the weights that it has by then.
"""

from collections.abc import Collection, Iterable, Iterator

import numpy as np

from clipper_stream.evaluation.candidates.learning_policy import LearningPolicy
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.ensembles import Answering, OutputRows
from clipper_stream.evaluation.log.joint_propensity import joint_propensity
from clipper_stream.evaluation.log.known_losses import known_losses
from clipper_stream.evaluation.sequential.candidate_state import CandidateState, ReplayChoice, replay_rng
from clipper_stream.evaluation.sequential.replay_loop import Progress, ReplayedQuery, ReplayRun, queries_in_order


def simulate(
    chunks: Iterable[DecisionColumns],
    candidate: LearningPolicy,
    *,
    seed: int = 0,
    answering: Answering | None = None,
    trials: Collection[str] = (),
    progress: Progress | None = None,
) -> Iterator[ReplayRun]:
    """Let the candidate decide and learn, decision by decision.

    Args:
        chunks: A log in the order of time; one chunk is gone through by `at_ms`.
        candidate: What it begins with.
        seed: Of its draws. Another seed is another course: run several, and look how far they part.
        answering: How outputs are combined, for a policy that serves several models; None: by vote, zero-one loss.
        trials: Versions in the log that no policy chose.
        progress: Told how many decisions were gone through.

    >>> from clipper_stream.evaluation.log.arrays import logged
    >>> from clipper_stream.selection.registry import make_policy
    >>> columns = logged([[1.0, 1.0]] * 2, [[0.0, 1.0]] * 2)
    >>> run = next(simulate([columns], LearningPolicy(policy=make_policy("exp3"), models=columns.models)))
    >>> run.target.round(3).tolist(), run.numerator.round(3).tolist()
    ([[0.5, 0.5], [0.5, 0.5]], [0.5, 0.5])

    Raises:
        InvalidSetting: the policy draws among several sets of models.

    Source: Li, Chu, Langford and Schapire, "A contextual-bandit approach to personalized news article recommendation",
    WWW 2010, section 4 (why a policy that learns cannot be judged by its frozen choices).
    """
    learner = candidate.learner()
    for columns in chunks:
        yield _through(columns.of_models(_all(columns, learner)), learner, seed, answering or Answering(), trials)
        if progress is not None:
            progress(len(columns))


def _all(columns: DecisionColumns, learner: CandidateState) -> tuple[str, ...]:
    """The learner's models first, in their order."""
    return (*learner.models, *(model for model in columns.models if model not in learner.models))


def _through(
    columns: DecisionColumns, learner: CandidateState, seed: int, answering: Answering, trials: Collection[str]
) -> ReplayRun:
    count = len(learner.models)
    known = known_losses(columns)
    whole = (known.weight[:, :count] > 0.0).all(axis=1)
    weight = np.divide(
        1.0,
        joint := joint_propensity(columns, learner.models, trials),
        where=(joint > 0.0) & whole,
        out=np.zeros(len(columns)),
    )
    run = ReplayRun.blank(len(columns), count)
    losses, outputs = known.loss[:, :count].tolist(), OutputRows(columns, learner.models, answering)
    for query in queries_in_order(columns, weight > 0.0):
        learner.advance(query.at_ms)
        standing = learner.standing(*query.place, query.features)
        loss = (
            outputs.loss(query.row, standing.choice.weights)
            if standing.together
            else _expected(standing, losses[query.row])
        )
        if np.isnan(loss):
            continue
        run.target[query.row] = standing.target
        run.denominator[query.row] = weight[query.row]
        run.numerator[query.row] = weight[query.row] * loss
        _learn(learner, standing, query, losses[query.row], seed)
    run.learned[:] = run.denominator > 0.0
    return run


def _expected(standing: ReplayChoice, losses: list[float]) -> float:
    return sum(share * loss for share, loss in zip(standing.target, losses, strict=True))


def _learn(
    learner: CandidateState, standing: ReplayChoice, query: ReplayedQuery, losses: list[float], seed: int
) -> None:
    rng = replay_rng(seed, query.place[1], query.query_offset)
    decision = standing.choice.certain or standing.choice.select(rng)
    known = dict(zip(learner.models, losses, strict=True))
    learner.expect(
        query.feedback_at_ms,
        query.place,
        query.feedback_offset,
        {model: known[model] for model in decision.models},
        dict(zip(decision.models, decision.propensities, strict=True)),
        query.features,
    )
