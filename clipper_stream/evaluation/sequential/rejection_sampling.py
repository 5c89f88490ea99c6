"""Sequential replay by rejection: the logged decisions that the candidate would have made itself become its history.

Of a decision whose asked models A are scored with probabilities q, model m of A is taken with probability
c pi(m) / q(m): over everything random in the log, each m is taken with probability c pi(m), which is the candidate's
own distribution, c times as often. At most one is taken, so c must not exceed 1 / sum of pi(m) / q(m) over A. Where
one model was asked this is rejection sampling, with c the acceptance ratio. The candidate learns from what is taken
alone, so its course is that of a candidate on a shorter log.

`reject` estimates from the decisions taken alone: unbiased, and wasteful. `sequential_dr` estimates from every decision
with feedback, by what the candidate would do there, with a ratio that follows the log.

Rules of this file:
- Under uniform logging of K models a fixed c = 1 / K is the published algorithm. Otherwise it must not exceed the least
  probability with which any model of the candidate was scored: one that was logged more often is taken so much more
  seldom. With a larger c some decisions should be taken more often than always. They are counted as clipped; what they
  would have weighed is lost, and the estimate leans to the log.
- What is taken keeps its times: the candidate has c times the decisions in as much time, so a delay is that many fewer
  decisions.
- In `sequential_dr`, a decision counts with the c of its time: the candidate's history has grown by c decisions, on
  average, for it. c is the least ratio so far: a quantile of 0.05 lets the candidate learn faster, and was wrong by up
  to 0.05 of loss where the log was nearly certain. It begins with the ratios that the candidate's first choices have on
  the first decisions, and not with 1. Else the estimate would count decisions fully just until the first one that
  weighs much, and so depend on its loss.
- The predicted loss is learned from earlier decisions alone, so that the estimate stays unbiased whatever it predicts.

Source: Dudik, Erhan, Langford and Li, "Sample-efficient nonstationary policy evaluation for contextual bandits", UAI
2012, algorithm 1 (there A is one action; R_k and c_t are its names). Li, Chu, Langford and Wang, "Unbiased offline
evaluation of contextual-bandit-based news article recommendation algorithms", WSDM 2011, algorithm 2 and theorem 1 (q
uniform, c = 1 / K).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil, log2

import numpy as np

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.candidates.candidate import LearningPolicy
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.known_losses import known_losses
from clipper_stream.evaluation.sequential.replay import (
    CandidateState,
    ReplayedQuery,
    ReplayRun,
    queries_in_order,
    replay_rng,
)
from clipper_stream.selection.parameters import check_number

_ROUNDING = 1.0 + 1e-9
_PRIMING = 4_096
"""Decisions that the ratio begins with: a weight that one in a thousand has is among them, but for one log in sixty."""
_A_DOUBLING = 32
"""Steps between a ratio and its half: it is rounded down by 2 % at most."""


def reject(
    chunks: Iterable[DecisionColumns], candidate: LearningPolicy, *, ratio: float, seed: int = 0
) -> Iterator[ReplayRun]:
    """Take what the candidate would have chosen, and let it learn from that.

    Args:
        chunks: A log in the order of time; one chunk is gone through by `at_ms`.
        candidate: What it begins with.
        ratio: The acceptance ratio, in (0, 1]: the least probability in all chunks.
        seed: Of the draws.

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
    """
    check_number("ratio", ratio, most=1.0, above=0.0)
    learner = _alone(candidate)
    for columns in chunks:
        run, known = ReplayRun.blank(len(columns), len(learner.models)), _Known.of(columns, learner)
        for query in known.queries:
            row, weights, losses = query.row, known.weights[query.row], known.losses[query.row]
            target = learner.choice_for(query).target
            run.target[row], run.clipped[row] = target, ratio * importance(target, weights) > _ROUNDING
            number = taken(target, weights, ratio, query, seed)
            if number is not None:
                run.numerator[row], run.denominator[row], run.learned[row] = losses[number], 1.0, True
                _learn(learner, target, number, losses[number], query)
        yield run


def sequential_dr(
    chunks: Iterable[DecisionColumns], candidate: LearningPolicy, *, seed: int = 0
) -> Iterator[ReplayRun]:
    """Estimate from every decision with feedback, and let the candidate learn from what is taken.

    Losses are predicted by the mean loss of each model so far. Arguments and errors are those of `reject`.

    >>> from clipper_stream.evaluation.log.arrays import logged
    >>> from clipper_stream.selection.registry import make_policy
    >>> single = LearningPolicy(policy=make_policy("single"), models=("m0:1", "m1:1"))
    >>> runs = list(sequential_dr([logged([[1.0, 1.0]] * 3, [[0.25, 1.0]] * 3)], single))
    >>> float(runs[0].numerator.sum() / runs[0].denominator.sum())
    0.25
    """
    learner, ratio, means = _alone(candidate), LeastRatio(), _Means(len(candidate.models))
    for columns in _primed(ratio, iter(chunks), learner):
        run, known = ReplayRun.blank(len(columns), len(learner.models)), _Known.of(columns, learner)
        for query in known.queries:
            row, weights, losses = query.row, known.weights[query.row], known.losses[query.row]
            target, c = learner.choice_for(query).target, ratio.value
            counts = importance(target, weights)
            run.target[row], run.denominator[row], run.clipped[row] = target, c, c * counts > _ROUNDING
            run.numerator[row] = c * _doubly_robust(target, weights, losses, means.of)
            means.add(weights, losses)
            ratio.add(counts)
            number = taken(target, weights, c, query, seed)
            if number is not None:
                run.learned[row] = True
                ratio.renew()
                _learn(learner, target, number, losses[number], query)
        yield run


@dataclass(frozen=True, slots=True)
class _Known:
    """Decisions that say something, in the order of time, with weights and losses of the learner's models by row."""

    queries: Iterable[ReplayedQuery]
    weights: list[list[float]]
    losses: list[list[float]]

    @classmethod
    def of(cls, columns: DecisionColumns, learner: CandidateState) -> "_Known":
        known = known_losses(columns.of_models(learner.models))
        queries = queries_in_order(columns, np.any(known.weight, axis=1))
        return cls(queries, known.weight.tolist(), known.loss.tolist())


def _alone(candidate: LearningPolicy) -> CandidateState:
    """The candidate's first state; refuses a policy that serves several models together, whose loss is none of one."""
    learner = candidate.learner()
    if together := learner.standing(None, 0).together:
        raise InvalidSetting(
            f"policy {learner.policy.name!r} serves {len(together)} models together while it learns: simulate "
            "it where all outputs were logged, or evaluate it frozen"
        )
    return learner


def importance(target: Sequence[float], weights: Sequence[float]) -> float:
    """Sum of pi(m) / q(m) over the models that were scored."""
    return sum(share * weight for share, weight in zip(target, weights, strict=True))


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


def _learn(learner: CandidateState, target: Sequence[float], number: int, loss: float, query: ReplayedQuery) -> None:
    """The candidate will see this loss of this model, as of its own choice, when the feedback came."""
    model = learner.models[number]
    learner.expect(query, {model: loss}, {model: min(1.0, target[number])})


def _primed(
    ratio: "LeastRatio", chunks: Iterator[DecisionColumns], learner: CandidateState
) -> Iterator[DecisionColumns]:
    """Yield the same chunks once the ratio knows the importance of the candidate's first choices."""
    begun: list[DecisionColumns] = []
    left = _PRIMING
    while left > 0 and (columns := next(chunks, None)) is not None:
        begun.append(columns)
        weight = known_losses(columns.of_models(learner.models)).weight
        seen = np.flatnonzero(np.any(weight, axis=1))[:left]
        for query in queries_in_order(columns.take(seen), np.ones(len(seen), np.bool_)):
            target = learner.standing(*query.place, query.features).target
            ratio.add(importance(target, weight[seen[query.row]].tolist()))
        left -= len(seen)
    ratio.renew()
    return chain(begun, chunks)


def _doubly_robust(
    target: Sequence[float], weights: Sequence[float], losses: Sequence[float], guess: Sequence[float]
) -> float:
    """R_k: sum of pi q + pi w (L - q)."""
    return sum(
        share * (predicted + weight * (loss - predicted))
        for share, weight, loss, predicted in zip(target, weights, losses, guess, strict=True)
    )


class _Means:
    """Weighed mean loss of each model so far; before the first, one decision at a loss of a half."""

    __slots__ = ("_counts", "_losses", "of")

    def __init__(self, models: int) -> None:
        self._counts, self._losses = [1.0] * models, [0.5] * models
        self.of = [0.5] * models

    def add(self, weights: Sequence[float], losses: Sequence[float]) -> None:
        for number, weight in enumerate(weights):
            if weight:
                self._counts[number] += weight
                self._losses[number] += weight * losses[number]
                self.of[number] = self._losses[number] / self._counts[number]


class LeastRatio:
    """The acceptance ratio: the least of min(1, 1 / importance) over the decisions so far, rounded down.

    >>> ratio = LeastRatio()
    >>> for importance in (0.5, 4.0, 0.0):
    ...     ratio.add(importance)
    >>> ratio.value
    1.0
    >>> ratio.renew()
    >>> ratio.value
    0.25

    Source: Dudik et al., UAI 2012, algorithm 1 (q = 0, c_max = 1).
    """

    __slots__ = ("_steps", "value")

    def __init__(self) -> None:
        self._steps = 0
        self.value = 1.0

    def add(self, importance: float) -> None:
        """Add the importance of one decision: how much more often the candidate makes it than the log."""
        if importance > 1.0:
            self._steps = max(self._steps, ceil(_A_DOUBLING * log2(importance)))

    def renew(self) -> None:
        """Let the value follow what was added since the last time."""
        self.value = 2.0 ** (-self._steps / _A_DOUBLING)
