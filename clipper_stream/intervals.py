"""95 % intervals of a mean loss by a formula.

`wilson` is right for one look. A rule that looks again and again needs
`clipper_stream.sequential_testing`.
"""

import math
from typing import TypeAlias

import numpy as np

Z = 1.959963984540054
"""Quantile of the normal distribution for 95 %."""

STAKES = tuple((stake, math.expm1(stake)) for stake in np.geomspace(0.01, 8.0, 8).tolist())
"""Each with exp(stake) - 1: small ones for many losses, large ones for few losses or a mean near 0 or 1."""

Ends: TypeAlias = tuple[float, float]
"""Lower and upper end of an interval."""


def wilson(wrong: float, count: float) -> Ends:
    """95 % interval of a proportion; it stays within [0, 1] and is not empty at 0 errors.

    Of losses between 0 and 1 it is wider than it need be: no loss with this mean varies more than one of 0 and 1.

    Args:
        wrong: Sum of the losses, each in [0, 1].
        count: How many they are, >= 0; with a discount no whole number.

    >>> tuple(round(bound, 4) for bound in wilson(5, 100))
    (0.0215, 0.1118)

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    if count <= 0:
        return 0.0, 1.0
    share, ratio = min(1.0, max(0.0, wrong / count)), Z * Z / count
    centre = (share + ratio / 2) / (1 + ratio)
    half = Z * math.sqrt(share * (1 - share) / count + ratio / (4 * count)) / (1 + ratio)
    return max(0.0, centre - half), min(1.0, centre + half)


def confidence_sequence(wrong: float, count: float) -> Ends:
    """95 % interval of a mean loss that holds at all times at once, of the sum of the losses alone.

    The probability that the mean ever lies outside, however often the interval is looked at, is at most 5 %. The mean
    is that of the losses' expectations, each given what was before: it may drift. Sums that age are not covered.

    Args:
        wrong: Sum of the losses, each in [0, 1].
        count: How many they are, >= 0.

    >>> tuple(round(bound, 4) for bound in confidence_sequence(5, 100))
    (0.0049, 0.159)

    Source: Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform Chernoff bounds via nonnegative supermartingales",
    Probab. Surveys 17, 2020 (the sub-Bernoulli bound of a stake, here of each of `STAKES` and for both sides with an
    equal part of the 5 %); Hoeffding, "Probability inequalities for sums of bounded random variables", JASA 58, 1963.
    """
    if count <= 0:
        return 0.0, 1.0
    mean, slack = min(1.0, max(0.0, wrong / count)), math.log(2 * len(STAKES) / 0.05) / count
    below, above = (
        max(math.expm1(stake * share - slack) / growth for stake, growth in STAKES) for share in (mean, 1.0 - mean)
    )
    return max(0.0, below), min(1.0, 1.0 - above)
