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
from dataclasses import dataclass
from typing import Protocol, Self

from clipper_stream.errors import InvalidLabel, InvalidSetting


class ConfidenceSequence(Protocol):
    """An interval for the mean of bounded observations: `Betting` and `EmpiricalBernstein`, frozen dataclasses.

    The observations may depend on each other; what has to be the same at all times is the mean of the next one, given
    those before (a share of queries drawn at random, each compared in the same way, has that).
    """

    @property
    def alpha(self) -> float:
        """Probability, in (0, 1), that the mean is ever outside, over all times together; half of it for each end."""
        ...

    @property
    def count(self) -> int:
        """Observations so far."""
        ...

    @property
    def mean(self) -> float:
        """Mean of the observations; the middle of the range before the first."""
        ...

    @property
    def lower(self) -> float:
        """Lower end of the interval, in the observations' unit."""
        ...

    @property
    def upper(self) -> float:
        """Upper end of the interval."""
        ...

    def observe(self, value: float) -> Self:
        """The sequence after one observation.

        Raises:
            InvalidLabel: the value lies outside of the range.
        """
        ...


def check_sequence(alpha: float, low: float, high: float) -> None:
    """Check the parameters of a sequence.

    Raises:
        InvalidSetting: alpha outside of (0, 1), or an empty range.
    """
    if not 0.0 < alpha < 1.0:
        raise InvalidSetting(f"alpha is {alpha!r}: give a probability in (0, 1), such as 0.05")
    if not low < high:
        raise InvalidSetting(f"range {low!r} to {high!r}: give a lower end below the upper end")


def scaled(value: float, low: float, high: float) -> float:
    """The value as a number in [0, 1].

    >>> scaled(0.0, -1.0, 1.0)
    0.5

    Raises:
        InvalidLabel: the value lies outside of the range.
    """
    if not low <= value <= high:
        raise InvalidLabel(f"observation {value!r}: give a number from {low:g} to {high:g}")
    return (value - low) / (high - low)


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
