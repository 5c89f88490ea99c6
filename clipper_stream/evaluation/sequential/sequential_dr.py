"""DR for a policy that learns: every decision with feedback is estimated from, some of them become its history.

A walk keeps the candidate's history by rejection, as `rejection` does, and at each decision adds the doubly robust
estimate of what the candidate would do there. The acceptance ratio c follows the log: it is a low quantile of
1 / sum of pi(m) / q(m) so far, so that few decisions are clipped, instead of the least that there can be.

Rules of this file:
- A decision counts with the c of its time: the candidate's history has grown by c decisions, on average, for it.
- The predicted loss is learned from earlier decisions alone, so that the estimate stays unbiased whatever it predicts.
- With a quantile of 0, the default, c is the least ratio so far, which biases least and learns slowest. What 0.05 costs
  is in benchmarks/results/learning-candidates.md: up to 0.05 of loss where the log was nearly certain.
- c begins with the ratios that the candidate's first choices have on the first decisions, and not with 1. Else the
  estimate would count decisions fully just until the first one that weighs much, and so depend on its loss.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from math import ceil, log2

import numpy as np

from clipper_stream.evaluation.candidates.learning_policy import LearningPolicy
from clipper_stream.evaluation.log.columns import DecisionColumns, Floats
from clipper_stream.evaluation.log.known_losses import known_losses
from clipper_stream.evaluation.sequential.acceptance import check_alone, importance, learn, taken
from clipper_stream.evaluation.sequential.candidate_state import CandidateState
from clipper_stream.evaluation.sequential.replay_loop import Progress, ReplayRun, queries_in_order
from clipper_stream.selection.parameters import check_number

_ROUNDING = 1.0 + 1e-9
_PRIMING = 4_096
"""Decisions that the ratio begins with: a weight that one in a thousand has is among them, but for one log in sixty."""
_A_DOUBLING = 32
"""Bins between a ratio and its half: a quantile is read 2 % low at most."""
_DOUBLINGS = 40

Predict = Callable[[DecisionColumns], Floats]
"""Predicted loss of each model, (n, K), in the order of the columns' models."""


def sequential_dr(
    chunks: Iterable[DecisionColumns],
    candidate: LearningPolicy,
    *,
    quantile: float = 0.0,
    predict: Predict | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Iterator[ReplayRun]:
    """Estimate, and let the candidate learn from what is taken.

    Args:
        chunks: A log in the order of time; one chunk is gone through by `at_ms`.
        candidate: What it begins with.
        quantile: Share of decisions that may be clipped, in [0, 1). They teach more, and the estimate leans to the log.
        predict: Predicted losses of the candidate's models; None: the mean loss of each model so far.
        seed: Of the draws.
        progress: Told how many decisions were gone through.

    >>> from clipper_stream.evaluation.log.arrays import logged
    >>> from clipper_stream.selection.registry import make_policy
    >>> single = LearningPolicy(policy=make_policy("single"), models=("m0:1", "m1:1"))
    >>> runs = list(sequential_dr([logged([[1.0, 1.0]] * 3, [[0.25, 1.0]] * 3)], single))
    >>> float(runs[0].numerator.sum() / runs[0].denominator.sum())
    0.25

    Raises:
        InvalidSetting: the quantile is none; the policy serves several models together.

    Source: Dudik, Erhan, Langford and Li, "Sample-efficient nonstationary policy evaluation for contextual bandits",
    UAI 2012, algorithm 1 (R_k, c_t, q and Q are its names).
    """
    learner, ratio, means = candidate.learner(), RatioQuantile(quantile), _Means(len(candidate.models))
    check_alone(learner, learner.standing(None, 0))
    for columns in _primed(ratio, iter(chunks), learner):
        mine = columns.of_models(learner.models)
        predicted = None if predict is None else predict(mine).tolist()
        yield _through(mine, learner, ratio, means, predicted, seed)
        if progress is not None:
            progress(len(columns))


def _through(
    mine: DecisionColumns,
    learner: CandidateState,
    ratio: "RatioQuantile",
    means: "_Means",
    predicted: Sequence[Sequence[float]] | None,
    seed: int,
) -> ReplayRun:
    known = known_losses(mine)
    run = ReplayRun.blank(len(mine), len(learner.models))
    weights, losses = known.weight.tolist(), known.loss.tolist()
    for query in queries_in_order(mine, np.any(known.weight, axis=1)):
        row, weight, loss = query.row, weights[query.row], losses[query.row]
        learner.advance(query.at_ms)
        target, c = learner.standing(*query.place, query.features).target, ratio.value
        guess = means.of if predicted is None else predicted[row]
        counts = importance(target, weight)
        run.target[row], run.denominator[row], run.clipped[row] = target, c, c * counts > _ROUNDING
        run.numerator[row] = c * _doubly_robust(target, weight, loss, guess)
        means.add(weight, loss)
        ratio.add(counts)
        number = taken(target, weight, c, query, seed)
        if number is not None:
            run.learned[row] = True
            ratio.renew()
            learn(learner, target, number, loss[number], query)
    return run


def _primed(
    ratio: "RatioQuantile", chunks: Iterator[DecisionColumns], learner: CandidateState
) -> Iterator[DecisionColumns]:
    """Yield the same chunks once the ratio knows the importance of the candidate's first choices."""
    begun: list[DecisionColumns] = []
    left = _PRIMING
    while left > 0 and (columns := next(chunks, None)) is not None:
        begun.append(columns)
        left -= _prime(ratio, columns.of_models(learner.models), learner, left)
    ratio.renew()
    return chain(begun, chunks)


def _prime(ratio: "RatioQuantile", mine: DecisionColumns, learner: CandidateState, most: int) -> int:
    """Feed the first decisions of a chunk to the ratio; return how many."""
    weight = known_losses(mine).weight
    seen = np.flatnonzero(np.any(weight, axis=1))[:most]
    for query in queries_in_order(mine.take(seen), np.ones(len(seen), np.bool_)):
        target = learner.standing(*query.place, query.features).target
        ratio.add(importance(target, weight[seen[query.row]].tolist()))
    return len(seen)


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
        """Add one decision."""
        for number, weight in enumerate(weights):
            if weight:
                self._counts[number] += weight
                self._losses[number] += weight * losses[number]
                self.of[number] = self._losses[number] / self._counts[number]


class RatioQuantile:
    """The acceptance ratio: a quantile of min(1, 1 / importance) over the decisions so far, rounded down.

    Args:
        quantile: In [0, 1); 0 is the least of all.

    >>> ratio = RatioQuantile(0.0)
    >>> for importance in (0.5, 4.0, 0.0):
    ...     ratio.add(importance)
    >>> ratio.value
    1.0
    >>> ratio.renew()
    >>> ratio.value
    0.25

    Source: Dudik et al., UAI 2012, algorithm 1 (Q, q, c_max = 1). Masson, Rim and Lee, "DDSketch", VLDB 2019 (bins of
    equal ratio).
    """

    __slots__ = ("_bin", "_bins", "_count", "_lower", "_quantile", "value")

    def __init__(self, quantile: float) -> None:
        check_number("quantile", quantile, most=1.0)
        self._quantile = quantile
        self._bins = [0] * (_A_DOUBLING * _DOUBLINGS + 1)
        self._count = 0
        self._bin = 0
        self._lower = 0  # ratios in bins beyond `_bin`, which are lower ones
        self.value = 1.0

    def add(self, importance: float) -> None:
        """Add the importance of one decision: how much more often the candidate makes it than the log."""
        place = 0 if importance <= 1.0 else min(len(self._bins) - 1, ceil(_A_DOUBLING * log2(importance)))
        self._bins[place] += 1
        self._count += 1
        if place > self._bin:
            self._lower += 1

    def renew(self) -> None:
        """Let the value follow what was added since the last time."""
        most = self._quantile * self._count
        while self._lower > most:
            self._bin += 1
            self._lower -= self._bins[self._bin]
        while self._bin > 0 and self._lower + self._bins[self._bin] <= most:
            self._lower += self._bins[self._bin]
            self._bin -= 1
        self.value = 2.0 ** (-self._bin / _A_DOUBLING)
