"""Sequential replay by rejection: the logged decisions that the candidate would have made itself become its history.

Of a decision whose asked models A are scored with probabilities q, model m of A is taken with probability
c pi(m) / q(m): over everything random in the log, each m is taken with probability c pi(m), which is the candidate's
own distribution, c times as often. At most one is taken, so c must not exceed 1 / sum of pi(m) / q(m) over A. Where
one model was asked this is rejection sampling, with c the acceptance ratio. The candidate learns from what is taken
alone, so its course is that of a candidate on a shorter log: the estimate is unbiased, and wasteful.

Rules of this file:
- Under uniform logging of K models a fixed c = 1 / K is the published algorithm. Otherwise it must not exceed the least
  probability with which any model of the candidate was scored: one that was logged more often is taken so much more
  seldom. With a larger c some decisions should be taken more often than always, and the estimate leans to the log.
- What is taken keeps its times: the candidate has c times the decisions in as much time, so a delay is that many fewer
  decisions.

Source: Dudik, Erhan, Langford and Li, "Sample-efficient nonstationary policy evaluation for contextual bandits", UAI
2012, algorithm 1 (there A is one action, and c_t is its name). Li, Chu, Langford and Wang, "Unbiased offline
evaluation of contextual-bandit-based news article recommendation algorithms", WSDM 2011, algorithm 2 and theorem 1 (q
uniform, c = 1 / K).
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.candidates.candidate import LearningPolicy, members_of
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.known_losses import known_losses
from clipper_stream.evaluation.sequential.replay import (
    ReplayedQuery,
    ReplayRun,
    queries_in_order,
    replay_rng,
)
from clipper_stream.selection.parameters import check_number


def reject(
    chunks: Iterable[DecisionColumns], candidate: LearningPolicy, *, ratio: float, seed: int = 0
) -> Iterator[ReplayRun]:
    """Take what the candidate would have chosen, with a denominator of 1, and let it learn from that."""
    check_number("ratio", ratio, most=1.0, above=0.0)
    learner = candidate.learner()
    if together := learner.standing(None, 0).together:
        raise InvalidSetting(
            f"policy {learner.policy.name!r} serves {len(together)} models together while it learns: simulate "
            "it where all outputs were logged, or evaluate it frozen"
        )
    for columns in chunks:
        run, known = ReplayRun.blank(len(columns), len(learner.models)), known_losses(columns.of_models(learner.models))
        weights, losses = known.weight.tolist(), known.loss.tolist()
        for query in queries_in_order(columns, np.any(known.weight, axis=1), partial(members_of, candidate)):
            row, target = query.row, learner.choice_for(query).target
            run.target[row] = target
            number = taken(target, weights[row], ratio, query, seed)
            if number is not None:
                loss, model = losses[row][number], learner.models[number]
                run.numerator[row], run.denominator[row], run.learned[row] = loss, 1.0, True
                learner.expect(query, {model: loss}, {model: min(1.0, target[number])})
        yield run


def taken(
    target: Sequence[float], weights: Sequence[float], ratio: float, query: ReplayedQuery, seed: int
) -> int | None:
    """Which model's loss becomes history, by pi, 1 / q, c and the query's random number; None: that of none."""
    left = replay_rng(seed, query.place[1], query.query_offset).random()
    for number, (share, weight) in enumerate(zip(target, weights, strict=True)):
        left -= ratio * share * weight
        if left < 0.0:
            return number
    return None
