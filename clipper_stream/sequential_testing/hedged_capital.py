"""The hedged-capital confidence sequence: a mean is ruled out when betting against it would have made a fortune.

For each mean m on a grid two players bet on every observation x, one that the mean is greater than m, one that it is
less. If m is the mean their capital is a martingale, and reaches 2 / alpha ever with probability of at most alpha / 2
each (Ville). So the means against which nobody has reached that hold the true one, at all times at once.

Rules of this file:
- The first player's capital falls with m and the second's rises, so what is left is an interval, and each player needs
  only the part of the grid that he has not ruled out.
- An end is a point of the grid that is ruled out: rounding makes the interval wider, never too narrow.
"""

import math
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from clipper_stream.sequential_testing.confidence_sequence import ConfidenceSequence

GRID = 800
"""Means to look at: steps of 0.00125 of a loss, and of 0.0025 of a difference, an eighth of the usual margin."""
LARGEST_BET = 0.5
"""Of the capital that a player may lose at once. 3/4 narrows the first hundred intervals by a tenth, and widens by as
much those at a thousand, where versions that are nearly equal are told apart."""

_Floats: TypeAlias = npt.NDArray[np.float64]
_MEANS: _Floats = np.linspace(0.0, 1.0, GRID + 1)
with np.errstate(divide="ignore"):
    _MOST_ABOVE: _Floats = LARGEST_BET / _MEANS
    _MOST_BELOW: _Floats = LARGEST_BET / (1.0 - _MEANS)


def _even() -> _Floats:
    return np.zeros(GRID + 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Betting(ConfidenceSequence):
    """The means against which nobody could have made a fortune.

    >>> differences = Betting(alpha=0.05, low=-1.0, high=1.0)
    >>> for _ in range(10):
    ...     differences = differences.observe(1.0)
    >>> differences.lower > 0.05, differences.upper
    (True, 1.0)

    Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", J. R. Stat. Soc. B 86,
    2024 (2023 online), theorem 3 and section 4.4 (theta = 1/2 and c = `LARGEST_BET`), with its running intersection.
    """

    _above: _Floats = field(default_factory=_even, repr=False)
    _below: _Floats = field(default_factory=_even, repr=False)

    @property
    def _unit_ends(self) -> tuple[float, float]:
        below, above = (max(0, GRID - len(left)) for left in (self._above, self._below))
        return below / GRID, (GRID - above) / GRID

    def observe(self, value: float) -> "Betting":
        unit = self._unit_of(value)
        goal = math.log(2.0 / self.alpha)
        bet = self._plug_in.bet(goal)
        first, stop = GRID + 1 - len(self._above), len(self._below)
        above = self._above + np.log1p(np.minimum(bet, _MOST_ABOVE[first:]) * (unit - _MEANS[first:]))
        below = self._below + np.log1p(np.minimum(bet, _MOST_BELOW[:stop]) * (_MEANS[:stop] - unit))
        return replace(
            self,
            _sum=self._sum + unit,
            _plug_in=self._plug_in.observe(unit),
            _above=above[np.count_nonzero(above >= goal) :],
            _below=below[: len(below) - np.count_nonzero(below >= goal)],
        )
