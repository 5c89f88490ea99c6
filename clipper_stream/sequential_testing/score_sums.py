"""Whether a mean lies below or above a margin, asked at any time: a mixture of constant bets on scores.

For each of ten bets b, and for both sides, a player's capital is the product of 1 + b * (what speaks for his side). A
constant bet's capital grows no faster than the mean lets it, whatever the mean does meanwhile: it may drift, and depend
on all that was before. So the probability that the mean of the capitals ever reaches 1 / alpha, while the running mean
lies on the other side, is at most alpha (Ville's inequality).

Rules of this file:
- A score has a weight, known before it is drawn, and lies between two ends, equal once all is known. Each side takes
  the end that speaks against it. So what is not known yet, or never will be, can only make both sides wait.
- All that is kept of a second are sums: what becomes known later takes the place of what stood for it.
- No end of an interval is kept: an interval says what all scores up to now say.
"""

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

BETS: Floats = np.geomspace(0.02, 0.95, 10)
"""Shares of the capital: small ones tell versions apart that are nearly equal, large ones those that are not."""
WAITING_COSTS = 10
"""What the newest seconds say is left out while more than one in so many of their scores is waited for."""
MOST_AT_BOUND = 0.05
"""Share of losses that may stand at the bound, where they may be any larger ones, before they compare nothing."""
_BELOW, _ABOVE = slice(0, len(BETS)), slice(len(BETS), 2 * len(BETS))
_WIDTH = 2 * len(BETS) + 14
_WEIGHT, _LOW, _HIGH, _SQUARES, _CUBES, _EQUAL, _SCORES, _WAITING, _TRIAL = range(_WIDTH - 14, _WIDTH - 5)
_ANSWER = _WIDTH - 3
"""Places of the sums: logarithms of the capitals of both sides, and then the others; of the trial's and the answers'
known losses their weighted sum, their number, and the sum of their weights, and that of those that are equal anyway."""


class Score(NamedTuple):
    """One score.

    Attributes:
        weight: What the mean is multiplied by in its expectation, in [0, 1].
        low: Least value that it may have, in [-1, 1], or one that is no greater on average: what speaks for "above".
        high: Greatest value, or one that is no less on average: what speaks for "below".
        waiting: Whether more of it may become known.
        trial: Loss of the trial in it, as feedback says; None: not known.
        answer: The same of what it is compared with.
        known: Weight of these two in their means, with which both are about the same queries.
    """

    weight: float
    low: float
    high: float
    waiting: bool = False
    trial: float | None = None
    answer: float | None = None
    known: float = 1.0


@dataclass(frozen=True, slots=True)
class Capital:
    """What scores up to some second say of their mean.

    Attributes:
        upto: That second.
        margin: What the mean is compared with.
        left_out: How many newer scores there are, of which too many are waited for.

    >>> sums = ScoreSums(margin=0.02)
    >>> for second in range(40):
    ...     sums.add(second, Score(1.0, -0.5, -0.5))
    >>> found = sums.capital()
    >>> found.mean, found.below > math.log(40), found.upper(1 / 40) < 0.0
    (-0.5, True, True)

    Source: as `ScoreSums`.
    """

    upto: int
    margin: float
    _sums: Floats
    left_out: int = 0

    @property
    def scores(self) -> int:
        """How many there are."""
        return round(float(self._sums[_SCORES]))

    @property
    def waiting(self) -> int:
        """How many of them may become known better."""
        return round(float(self._sums[_WAITING]))

    @property
    def mean(self) -> float | None:
        """Sum of the scores, each in the middle between its ends, by that of the weights; None without any."""
        sums = self._sums
        return float(sums[_LOW] + sums[_HIGH]) / 2 / float(sums[_WEIGHT]) if sums[_WEIGHT] > 0.0 else None

    def estimate(self, relative: float = 0.0) -> float | None:
        """Mean by the losses that are known, as far as the others allow, and so within any interval; None: of none."""
        (_, trial), (_, answer), (weight, low, high, *_) = self.trial, self.answer, self.totals
        if trial is None or answer is None:
            return None
        told, equal = float(self._sums[_TRIAL + 2]), float(self._sums[_EQUAL])
        known = (trial - (1.0 + relative) * answer) * told / (told + equal)
        return min(max(known, low / weight), high / weight) if weight > 0.0 else known

    @property
    def totals(self) -> tuple[float, float, float, float, float]:
        """Sums of weights, of the least and the greatest values, and of squares and cubes of those farther from 0."""
        weight, low, high, squares, cubes = self._sums[_WEIGHT:_EQUAL].tolist()
        return weight, low, high, max(0.0, squares), cubes  # what is taken away again may leave a rounding error

    @property
    def trial(self) -> tuple[int, float | None]:
        """Count and weighted mean of the trial's known losses; nothing stands for those that are not."""
        return self._known(_TRIAL)

    @property
    def answer(self) -> tuple[int, float | None]:
        """The same of what it is compared with."""
        return self._known(_ANSWER)

    @property
    def unknown(self) -> float:
        """Half of how far apart the ends of the scores are, by their weights: so much is `mean` uncertain by itself."""
        weight, low, high, *_ = self.totals
        return (high - low) / 2 / weight if weight > 0.0 else 0.0

    @property
    def standard_error(self) -> float:
        """Of `mean`, at this one time: not for a decision that may be wrong, only for patience."""
        weight, _, _, squares, _ = self.totals
        return math.sqrt(squares) / weight if weight > 0.0 else math.inf

    @property
    def below(self) -> float:
        """Logarithm of the capital of those who say that the mean is below the margin."""
        return _mean_capital(self._sums[_BELOW])

    @property
    def above(self) -> float:
        """Logarithm of the capital of those who say that it is above."""
        return _mean_capital(self._sums[_ABOVE])

    def lower(self, alpha: float) -> float:
        """Lower end of an interval in [-1, 1], which is ever above the mean with a probability of at most alpha."""
        return -self._end(self._sums[_ABOVE], -self.margin, alpha)

    def upper(self, alpha: float) -> float:
        """Upper end of an interval, which is ever below the mean with a probability of at most alpha."""
        return self._end(self._sums[_BELOW], self.margin, alpha)

    def _known(self, at: int) -> tuple[int, float | None]:
        count = round(float(self._sums[at + 1]))
        return count, float(self._sums[at] / self._sums[at + 2]) if count and self._sums[at + 2] > 0.0 else None

    def _end(self, capitals: Floats, margin: float, alpha: float) -> float:
        """The margin at which the capital would have been 1 / alpha: a greater one would have been ruled out."""
        stakes = _bets(self.margin) * self.totals[0]
        least, most = -1.0, 1.0
        for _ in range(40):
            middle = (least + most) / 2
            reached = _mean_capital(capitals + stakes * (middle - margin)) >= -math.log(alpha)
            least, most = (least, middle) if reached else (middle, most)
        return most


class ScoreSums:
    """Sums of scores by second, for one margin.

    Args:
        margin: What the mean is compared with, in [0, 1].

    >>> sums = ScoreSums(margin=0.02)
    >>> sums.add(0, Score(1.0, -1.0, 1.0, waiting=True))
    >>> sums.change(0, Score(1.0, -1.0, 1.0, waiting=True), Score(1.0, -1.0, -1.0))
    >>> sums.capital().mean
    -1.0

    Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", J. R. Stat. Soc. B 86,
    2024 (2023 online), section 4; the bets are constant, so that E(1 + b x) exp(-b E x) <= 1 lets the mean drift.
    """

    def __init__(self, margin: float) -> None:
        self.margin = margin
        self._settled_upto, self._settled = -1, np.zeros(_WIDTH)
        self._place: dict[int, int] = {}
        self._begun, self._count, self._total = -1, 0, 0.0
        self._seconds, self._rows = np.zeros(8, np.int64), np.zeros((8, _WIDTH))

    def add(self, second: int, score: Score) -> None:
        """Take in a score of this second."""
        self._add(second, _terms(self.margin, score))

    def add_query(self, second: int, value: float) -> None:
        """Take in a query's value in [-1, 1]: the mean of a second is one score, once a later one has a query.

        So what makes many queries fail or wait at once, a host that stalls or dies, is one event.
        """
        if second > self._begun:
            if self._count:
                mean = self._total / self._count
                self.add(self._begun, Score(1.0, mean, mean))
            self._begun, self._count, self._total = second, 0, 0.0
        self._count += 1
        self._total += value

    def change(self, second: int, before: Score | None, now: Score | None) -> None:
        """Put a score in the place of what stood for it; None: nothing."""
        self._add(second, _terms(self.margin, now) - _terms(self.margin, before))

    def capital(self, before: int | None = None) -> Capital:
        """What the scores say, without the newest seconds of which too much is waited for.

        Args:
            before: The first second not to be looked at; None: all are.
        """
        seconds, rows = self._in_order()
        count = len(seconds) if before is None else int(np.searchsorted(seconds, before))
        known = np.cumsum(rows[:count, _SCORES] - WAITING_COSTS * rows[:count, _WAITING])
        at = count - int(np.argmax(np.append(known[::-1], 0.0)))
        upto = int(seconds[at - 1]) if at else self._settled_upto
        left_out = round(float(rows[at:count, _SCORES].sum()))
        return Capital(upto + 1, self.margin, self._settled + rows[:at].sum(axis=0), left_out)

    def settle(self, before: float) -> None:
        """Put the seconds before this one together, once they are a quarter of all: none of them is left out then."""
        seconds, rows = self._in_order()
        at = int(np.searchsorted(seconds, before))
        if 4 * at > len(seconds):
            self._settled = self._settled + rows[:at].sum(axis=0)
            self._settled_upto = int(seconds[at - 1])
            self._keep(seconds[at:], rows[at:])

    def _add(self, second: int, terms: Floats) -> None:
        if second <= self._settled_upto:
            self._settled = self._settled + terms
            return
        place = self._place.get(second)
        if place is None:
            if len(self._place) == len(self._rows):
                self._keep(self._seconds, self._rows)
            place = self._place[second] = len(self._place)
            self._seconds[place] = second
        self._rows[place] += terms

    def _in_order(self) -> tuple[npt.NDArray[np.int64], Floats]:
        """The seconds that are kept apart, in their order, and the sums of each."""
        count = len(self._place)
        seconds = self._seconds[:count]
        if (seconds[1:] < seconds[:-1]).any():  # a loss that became known late began a second of its own
            order = np.argsort(seconds)
            self._keep(seconds[order], self._rows[:count][order])
        return self._seconds[:count], self._rows[:count]

    def _keep(self, seconds: npt.NDArray[np.int64], rows: Floats) -> None:
        count = len(seconds)
        self._place = {second: place for place, second in enumerate(seconds.tolist())}
        self._seconds, self._rows = np.zeros(2 * count + 8, np.int64), np.zeros((2 * count + 8, rows.shape[1]))
        self._seconds[:count], self._rows[:count] = seconds, rows


@lru_cache(maxsize=4096)
def _terms(margin: float, score: Score | None) -> Floats:
    """What a score adds to each sum; a score stands in several sums, and most are alike."""
    if score is None:
        return np.zeros(_WIDTH)
    weight, low, high, waiting, trial, answer, of = score
    stakes, terms, told = _bets(margin), np.empty(_WIDTH), trial is not None or answer is not None
    farther = low if -low > high else high
    terms[_BELOW] = np.log1p(stakes * (weight * margin - high))
    terms[_ABOVE] = np.log1p(stakes * (low - weight * margin))
    terms[_WEIGHT:_EQUAL] = weight, low, high, farther**2, farther**3
    terms[_EQUAL:_TRIAL] = of * (low == high and not told), 1.0, waiting
    terms[_TRIAL:_ANSWER] = of * (trial or 0.0), trial is not None, of * (trial is not None)
    terms[_ANSWER:] = of * (answer or 0.0), answer is not None, of * (answer is not None)
    return terms


@cache
def _bets(margin: float) -> Floats:
    return BETS / (1.0 + margin)


def _mean_capital(logarithms: Floats) -> float:
    return float(np.logaddexp.reduce(logarithms)) - math.log(len(logarithms))
