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

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np

from clipper_stream.evaluation.candidates.candidate import LearningPolicy, member_rows, members_of
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.ensembles import OutputRows
from clipper_stream.evaluation.log.joint_propensity import joint_propensity
from clipper_stream.evaluation.log.known_losses import known_losses
from clipper_stream.evaluation.sequential.replay import CandidateState, ReplayRun, queries_in_order, replay_rng


def simulate(chunks: Iterable[DecisionColumns], candidate: LearningPolicy, *, seed: int = 0) -> Iterator[ReplayRun]:
    """Let the candidate decide and learn, decision by decision.

    Source: Li, Chu, Langford and Schapire, "A contextual-bandit approach to personalized news article recommendation",
    WWW 2010, section 4 (why a policy that learns cannot be judged by its frozen choices).
    """
    learner = candidate.learner()
    for columns in chunks:
        others = (model for model in columns.models if model not in learner.models)
        yield _through(columns.of_models([*learner.models, *others]), candidate, learner, seed)


def _through(columns: DecisionColumns, candidate: LearningPolicy, learner: CandidateState, seed: int) -> ReplayRun:
    count, members = len(learner.models), member_rows(candidate, columns)
    known = known_losses(columns)
    whole = ((known.weight[:, :count] > 0.0) | ~members).all(axis=1)
    joint = joint_propensity(columns, learner.models, members)
    weight = np.divide(1.0, joint, where=(joint > 0.0) & whole, out=np.zeros(len(columns)))
    run = ReplayRun.blank(len(columns), count)
    losses, outputs = known.loss[:, :count].tolist(), OutputRows(columns, learner.models, members)
    for query in queries_in_order(columns, weight > 0.0, partial(members_of, candidate)):
        row, choice = query.row, learner.choice_for(query)
        loss = (
            outputs.loss(row, choice.choice.weights)
            if choice.together
            else sum(share * each for share, each in zip(choice.target, losses[row], strict=True))
        )
        if np.isnan(loss):
            continue
        run.target[row], run.learned[row] = choice.target, True
        run.denominator[row], run.numerator[row] = weight[row], weight[row] * loss
        rng = replay_rng(seed, query.place[1], query.query_offset)
        decision = choice.choice.certain or choice.choice.select(rng)
        told = dict(zip(learner.models, losses[row], strict=True))
        seen = {model: told[model] for model in decision.models}
        learner.expect(query, seen, dict(zip(decision.models, decision.propensities, strict=True)))
    return run
