"""Scores of contexts that are drawn once: each is the mean of the scores of its queries within a window.

All queries of such a context see one version, by one draw. Scores of each query would count that draw as often as the
context asks, and what they say would be far too sure: in `benchmarks/decisions.py` they err in a third of all trials.

Rules of this file:
- A context counts once, in the second of its first query. What it asks after its window says nothing new: it is the
  same draw.
- Until its window is over its score may be anything: no verdict depends on when a mean that still moves is looked at.
- What its losses are compared with was known at its first query: later it would depend on what was drawn.
"""

from collections import deque

import numpy as np

from clipper_stream.sequential_testing.score_sums import Floats, Score, ScoreSums

MOST_CONTEXTS = 500_000
"""Of a trial, some 50 MB; those that come later say nothing about it."""


class ContextMean:
    """The score of one context; scores of queries change it as they change the sums that it is part of.

    Args:
        second: Of its first query, since the epoch.
        recent: What its losses are compared with.
        sums: Where it counts.

    >>> sums = ScoreSums(margin=0.02)
    >>> mean = ContextMean(0, 0.5, (sums,))
    >>> for loss in (0.0, 1.0):
    ...     mean.change(0, None, Score(1.0, loss, loss))
    >>> sums.capital().left_out
    1
    >>> mean.close()
    >>> (sums.capital().scores, sums.capital().mean)
    (1, 0.5)

    Source: Deng, Lu and Qin, "The equivalence of the delta method and the cluster-robust variance estimator for the
    analysis of clustered randomized experiments", 2021, arXiv:2105.14705 (why queries are no units of such a draw).
    """

    __slots__ = ("_is_open", "_shown", "_sums", "_totals", "recent", "second")

    def __init__(self, second: int, recent: float, sums: tuple[ScoreSums, ...]) -> None:
        self.second, self.recent, self._sums = second, recent, sums
        self._totals, self._is_open = np.zeros(10), True
        self._shown: Score | None = None

    def change(self, _: int, before: Score | None, now: Score | None) -> None:
        """Put the score of a query in the place of what stood for it; None: nothing."""
        self._update(_terms(now) - _terms(before))

    def close(self) -> None:
        """End the window: no query is added any more, and the mean is what the context says."""
        self._is_open = False
        self._update(np.zeros(10))

    def _update(self, terms: Floats) -> None:
        self._totals = self._totals + terms
        before, self._shown = self._shown, self._score()
        for sums in self._sums if self._shown != before else ():
            sums.change(self.second, before, self._shown)

    def _score(self) -> Score | None:
        queries, trials, answers, *totals = self._totals.tolist()
        if round(queries) == 0:
            return None
        if self._is_open and self._shown is not None:
            return self._shown
        weight, known, low, high = (total / queries for total in totals[:4])
        if self._is_open:
            return Score(weight, -known, known, waiting=True)
        waiting, trial, answer = totals[4:]
        trial_loss, answer_loss = trial / trials if trials else None, answer / answers if answers else None
        return Score(weight, low, high, round(waiting) > 0, trial_loss, answer_loss, known)


class ContextMeans:
    """The contexts of a trial, by a number of each; a context has a mean for each of several scores of its queries.

    Args:
        window_s: So long after its first query a context's queries count, in seconds.

    >>> contexts, sums = ContextMeans(60.0), ScoreSums(0.02)
    >>> first, again = (contexts.join(0.25, second, 0.5, (sums,)) for second in (0, 59))
    >>> first[0] is again[0], first[1], again[1]
    (True, True, False)
    >>> contexts.close(60), contexts.join(0.25, 61, 0.5, (sums,))
    (None, ((), False))

    Source: as `ContextMean`.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._means: dict[float, tuple[ContextMean, ...]] = {}
        self._open: deque[tuple[float, tuple[ContextMean, ...]]] = deque()

    def join(
        self, number: float, second: int, recent: float, *sums: tuple[ScoreSums, ...]
    ) -> tuple[tuple[ContextMean, ...], bool]:
        """The means that a query of this second counts in, by where they count, and whether it is the context's first.

        Empty: the context's window is over, or there are too many contexts.
        """
        if number in self._means or len(self._means) >= MOST_CONTEXTS:
            return self._means.get(number, ()), False
        found = self._means[number] = tuple(ContextMean(second, recent, one) for one in sums)
        self._open.append((number, found))
        return found, True

    def close(self, second: int) -> None:
        """End the windows that are over in this second."""
        while self._open and self._open[0][1][0].second + self._window_s <= second:
            number, means = self._open.popleft()
            self._means[number] = ()
            for mean in means:
                mean.close()


def _terms(score: Score | None) -> Floats:
    if score is None:
        return np.zeros(10)
    weight, low, high, waiting, trial, answer, known = score
    told = trial is not None, answer is not None
    return np.array([1.0, *told, weight, known, low, high, waiting, trial or 0.0, answer or 0.0])
