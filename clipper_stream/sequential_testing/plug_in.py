"""The size of the next bet, from what was seen before it ("predictable plug-in").

Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", J. R. Stat. Soc. B 86, 2024
(2023 online), equations (14) and (15), where the t of both cancels: as if there had been one observation of 1/2 with
variance 1/4 before the first.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlugIn:
    """Mean and variance of observations in [0, 1] so far, drawn towards 1/2 and 1/4.

    Attributes:
        count: Observations so far.
        total: Their sum, and 1/2.
        squares: Sum of the squared distances, each from the mean with that observation in it, and 1/4.

    >>> PlugIn().observe(1.0).mean
    0.75

    Source: as this module.
    """

    count: int = 0
    total: float = 0.5
    squares: float = 0.25

    @property
    def mean(self) -> float:
        """Of the observations so far, and of 1/2."""
        return self.total / (self.count + 1)

    @property
    def variance_of_mean(self) -> float:
        """Of the mean of the observations, estimated."""
        return self.squares / (self.count + 1) ** 2

    def bet(self, logarithm: float) -> float:
        """The bet on the next observation, > 0, before it is bounded.

        Args:
            logarithm: log(2 / alpha): what the capital has to reach.
        """
        return math.sqrt(2.0 * logarithm / (self.squares * math.log1p(self.count + 1)))

    def observe(self, value: float) -> "PlugIn":
        """With one observation more, in [0, 1]."""
        total = self.total + value
        distance = value - total / (self.count + 2)
        return PlugIn(self.count + 1, total, self.squares + distance * distance)
