"""How sure a share of errors is."""

import math

import numpy as np
import numpy.typing as npt

Z = 1.959963984540054
"""Quantile of the normal distribution for 95 %."""

Interval = tuple[float, float]
BoolArray = npt.NDArray[np.bool_]


def wilson(wrong: int, count: int) -> Interval:
    """95 % interval of a proportion; it stays within [0, 1] and is not empty at 0 errors.

    >>> tuple(round(bound, 4) for bound in wilson(5, 100))
    (0.0215, 0.1118)

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    if count == 0:
        return 0.0, 1.0
    share, ratio = wrong / count, Z * Z / count
    centre = (share + ratio / 2) / (1 + ratio)
    half = Z * math.sqrt(share * (1 - share) / count + ratio / (4 * count)) / (1 + ratio)
    return max(0.0, centre - half), min(1.0, centre + half)


def paired(first: BoolArray, second: BoolArray) -> tuple[float, Interval]:
    """Difference of two error rates over the same queries, first less second, and its 95 % interval.

    Paired, since two models that err on the same pictures differ by much less than each of them is uncertain.

    Args:
        first: Whether the first was wrong, by query.
        second: The same of the second.
    """
    differences = first.astype(np.float64) - second.astype(np.float64)
    if not len(differences):
        return 0.0, (-1.0, 1.0)
    mean = float(differences.mean())
    half = Z * float(differences.std()) / math.sqrt(len(differences))
    return mean, (mean - half, mean + half)
