"""Which candidate to retire: the worst one, as soon as enough others are known to be better over the same queries.

A query counts the loss of a candidate that it asked with the probability p by min(1, w / p), and that of one that it
did not ask by nothing: on average w times its loss, or less. Counting what is left to 1 in the same way, and taking it
from w, gives w times its loss on average, or more. So both ends of a candidate's interval hold whoever is asked how
often, and all candidates are compared over all queries, however their shares and the queries change meanwhile.

Rules of this file:
- w is the least probability with which a candidate was asked before, and `LEAST` at least: known before the query is
  drawn, and the same for all candidates. One that is asked more seldom than `LEAST` can only look better at its lower
  end, and worse at its upper end, than it is.
- A loss that is not known lies between 0 and 1. So does that of a candidate that did not answer: its host may be
  starting, which says nothing about its losses.
- No candidate is better by losses of which more than `MOST_AT_BOUND` stand at the bound.
- The intervals of all candidates hold at all times together: 1 - confidence is divided by the number of their ends.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from clipper_stream.sequential_testing.score_sums import MOST_AT_BOUND, Capital, Score, ScoreSums

NOWHERE: Mapping[str, float] = {}
LEAST = 0.01
"""Of w: a candidate that is asked by one query in a hundred is still judged by all that it says."""


class Retirement(NamedTuple):
    """A candidate to retire, and why: the rule that fired, with value and bound.

    Its numbers are feedbacks, loss, lower, upper, confidence, and the upper end of each better one.
    """

    model: str
    why: str
    numbers: Mapping[str, Any]


@dataclass(slots=True, eq=False)
class OpenComparison:
    """A query that may get a feedback.

    Attributes:
        second: In which it was asked, since the epoch.
        weight: w.
        scores: What stands for the loss of each candidate that was asked and answered.
    """

    second: int
    weight: float
    scores: dict[str, Score]


class CandidateLosses:
    """The losses of all candidates over the same queries.

    Args:
        candidates: Their references.
        horizon_s: So long after its query a feedback may come, in seconds.
        sampled: Whether feedback is about a random sample of the queries, so that those without one are left out.

    Attributes:
        feedbacks: By candidate, how many gave its loss.

    >>> found = CandidateLosses(["a:1", "b:1"])
    >>> for second in range(100):
    ...     one = found.decide(second, {"a:1": 1.0, "b:1": 1.0})
    ...     found.learn(one, {"a:1": 0.0, "b:1": 1.0}, {"a:1": 1.0, "b:1": 1.0})
    >>> found.worst(1, 0.95).model
    'b:1'

    Source: Maron and Moore, "Hoeffding races", NIPS 1993, with intervals that hold at all times; Ionides, "Truncated
    importance sampling", J. Comput. Graph. Stat. 17, 2008.
    """

    def __init__(self, candidates: Iterable[str], horizon_s: float = math.inf, *, sampled: bool = False) -> None:
        self._sums = {ref: ScoreSums(0.0) for ref in candidates}
        self._horizon_s, self._second, self._sampled = horizon_s, 0, sampled
        self._least = 1.0
        self.feedbacks = dict.fromkeys(self._sums, 0)
        self._at_bound = dict.fromkeys(self._sums, 0.0)

    def decide(self, second: int, asked: Mapping[str, float], silent: Collection[str] = ()) -> OpenComparison:
        """Take in who was asked, in the log's order.

        Args:
            second: In which the query was asked, since the epoch.
            asked: Probability of being asked of each model that was, in (0, 1]; those that are no candidates are left
                out.
            silent: Those that did not answer.
        """
        opened = OpenComparison(second, max(LEAST, self._least), {})
        for ref, sums in self._sums.items():
            waits = ref in asked and ref not in silent
            score = Score(opened.weight, 0.0, opened.weight, waiting=waits)
            sums.add(second, score)
            if waits:
                opened.scores[ref] = score
        self._least = min([self._least, *(chance for ref, chance in asked.items() if ref in self._sums)])
        if second > self._second:
            self._second = second
            for sums in self._sums.values():
                sums.settle(second - self._horizon_s)
        return opened

    def learn(
        self,
        opened: OpenComparison,
        losses: Mapping[str, float],
        chances: Mapping[str, float],
        at_bound: Mapping[str, float] = NOWHERE,
    ) -> None:
        """Take in the feedback about a query.

        Args:
            opened: The query.
            losses: In [0, 1], of each model whose loss is known.
            chances: Probability with which each of these losses was to be known, in (0, 1].
            at_bound: Share of each one's numbers whose loss stands at the bound; without those of which none does.
        """
        for ref, before in opened.scores.items():
            now = before._replace(waiting=False)
            if ref in losses:
                counted = min(1.0, opened.weight / chances[ref])
                low = counted * losses[ref]
                now = Score(opened.weight, low, opened.weight - counted + low)
                self.feedbacks[ref] += 1
                self._at_bound[ref] += at_bound.get(ref, 0.0)
            self._sums[ref].change(opened.second, before, now)
        opened.scores = {}

    def give_up(self, opened: OpenComparison) -> None:
        """Wait no more for the feedback about a query."""
        if not self._sampled or not opened.scores:
            self.learn(opened, {}, {})
            return
        for ref, sums in self._sums.items():
            sums.change(opened.second, opened.scores.get(ref, Score(opened.weight, 0.0, opened.weight)), None)
        opened.scores = {}

    def capital(self, ref: str, before: int | None = None) -> Capital:
        """What is known of a candidate's mean loss; of its ends, that the interval may have."""
        return self._sums[ref].capital(before)

    def _is_measured(self, ref: str) -> bool:
        """Return whether few enough of its losses stand at the bound, where they may be any larger ones."""
        return self._at_bound[ref] <= MOST_AT_BOUND * self.feedbacks[ref]

    def worst(self, keep: int, confidence: float, before: int | None = None) -> Retirement | None:
        """The candidate to retire; None while there is none.

        Args:
            keep: How many are to be kept, at least 1.
            confidence: That of all intervals together.
            before: The first second that is not looked at; None: all are.
        """
        if len(self._sums) <= keep:
            return None
        alpha = (1.0 - confidence) / (2 * len(self._sums))
        found = {ref: self.capital(ref, before) for ref in self._sums}
        lower, upper = ({ref: end(one, alpha) for ref, one in found.items()} for end in (Capital.lower, Capital.upper))
        model = max(lower, key=lower.__getitem__)
        better = {ref: end for ref, end in upper.items() if end < lower[model] and self._is_measured(ref)}
        if len(better) < keep:
            return None
        most = max(better.values())
        why = f"it loses at least {lower[model]:.4f}, and {len(better)} others at most {most:.4f}; keep {keep}"
        numbers = {
            "feedbacks": self.feedbacks[model],
            "loss": found[model].mean,
            "lower": lower[model],
            "upper": upper[model],
            "confidence": confidence,
            "better": better,
        }
        return Retirement(model, why, numbers)
