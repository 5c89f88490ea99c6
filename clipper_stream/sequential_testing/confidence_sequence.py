"""What a confidence sequence is: an interval for a mean that may be looked at after every observation.

A fixed-n interval (a t-test's, say) is right at one time that was chosen before. Looked at again and again it is wrong
sooner or later: over 2,000 looks in about half of all runs. A confidence sequence holds at all times at once, with one
probability, so "look after each feedback and act when the interval is narrow enough" is a valid rule.

Rules of this file:
- A sequence is a pure fold: immutable, and the same observations in the same order give the same bits.
- An end only moves inwards. The ends may cross: then the mean was not the same all the time (or, with probability
  alpha, the sequence is wrong). The mean was then above `lower` at some time.
- The bets depend on what was seen before, so two sequences cannot be merged into one.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Self

from clipper_stream.errors import InvalidLabel, InvalidSetting


@dataclass(frozen=True, slots=True)
class PlugIn:
    """Mean and variance of observations in [0, 1] so far, drawn towards 1/2 and 1/4; they size the next bet.

    Attributes:
        count: Observations so far.
        total: Their sum, and 1/2.
        squares: Sum of the squared distances, each from the mean with that observation in it, and 1/4.

    >>> PlugIn().observe(1.0).mean
    0.75

    Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", J. R. Stat. Soc. B 86,
    2024 (2023 online), equations (14) and (15), where the t of both cancels: as if there had been one observation of
    1/2 with variance 1/4 before the first.
    """

    count: int = 0
    total: float = 0.5
    squares: float = 0.25

    @property
    def mean(self) -> float:
        """Mean of the observations so far and of 1/2."""
        return self.total / (self.count + 1)

    @property
    def variance_of_mean(self) -> float:
        """Estimated variance of the observations' mean."""
        return self.squares / (self.count + 1) ** 2

    def bet(self, logarithm: float) -> float:
        """The bet on the next observation, > 0, before it is bounded.

        Args:
            logarithm: log(2 / alpha): what the capital has to reach.
        """
        return math.sqrt(2.0 * logarithm / (self.squares * math.log1p(self.count + 1)))

    def observe(self, value: float) -> "PlugIn":
        """The same after one more observation, in [0, 1]."""
        total = self.total + value
        distance = value - total / (self.count + 2)
        return PlugIn(self.count + 1, total, self.squares + distance * distance)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConfidenceSequence:
    """An interval for the mean of bounded observations: `Betting` or `EmpiricalBernstein`.

    The observations may depend on each other; what has to be the same at all times is the mean of the next one, given
    those before (a share of queries drawn at random, each compared in the same way, has that).

    Attributes:
        alpha: Probability, in (0, 1), that the mean is ever outside, over all times together; half of it for each end.
        low: Least value of an observation.
        high: Greatest value of an observation.

    Raises:
        InvalidSetting: alpha outside of (0, 1), or an empty range.
    """

    alpha: float
    low: float = 0.0
    high: float = 1.0
    _sum: float = 0.0
    _plug_in: PlugIn = field(default_factory=PlugIn)

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < 1.0:
            raise InvalidSetting(f"alpha is {self.alpha!r}: give a probability in (0, 1), such as 0.05")
        if not self.low < self.high:
            raise InvalidSetting(f"range {self.low!r} to {self.high!r}: give a lower end below the upper end")

    @abstractmethod
    def observe(self, value: float) -> Self:
        """The sequence after one observation.

        Raises:
            InvalidLabel: the value lies outside of the range.
        """

    @property
    @abstractmethod
    def _unit_ends(self) -> tuple[float, float]:
        """The interval's ends, when the range is [0, 1]."""

    @property
    def count(self) -> int:
        """Observations so far."""
        return self._plug_in.count

    @property
    def mean(self) -> float:
        """Mean of the observations; the middle of the range before the first."""
        return self._in_range(self._sum / self.count if self.count else 0.5)

    @property
    def lower(self) -> float:
        """Lower end of the interval, in the observations' unit."""
        return self._in_range(self._unit_ends[0])

    @property
    def upper(self) -> float:
        """Upper end of the interval."""
        return self._in_range(self._unit_ends[1])

    @property
    def variance_of_mean(self) -> float:
        """Estimated variance of `mean`: the square of its standard error at this one time."""
        return (self.high - self.low) ** 2 * self._plug_in.variance_of_mean

    def _in_range(self, unit: float) -> float:
        return self.low + (self.high - self.low) * unit

    def _unit_of(self, value: float) -> float:
        if not self.low <= value <= self.high:
            raise InvalidLabel(f"observation {value!r}: give a number from {self.low:g} to {self.high:g}")
        return (value - self.low) / (self.high - self.low)
