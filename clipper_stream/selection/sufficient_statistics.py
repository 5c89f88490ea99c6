"""Moments: the sums that a linear regression of losses on features is made of, as one flat tuple.

Rules of this file:
- Losses are regressed on x = (1, features). For x of length d there are d (d + 3) / 2 moments: for each place j, in
  order, the sums of x_0 x_j to x_j x_j, and behind them the sum of loss x_j.
- So the moments of fewer features are the beginning of those of more, and a feature that a query does not have is 0.
- Plain Python floats in a fixed order: folding the same log gives the same bits.
"""

from collections.abc import Sequence
from itertools import zip_longest
from math import isqrt

import numpy as np
from numpy.typing import NDArray

Moments = tuple[float, ...]
Features = Sequence[float]


def moments_of(features: Features, loss: float) -> Moments:
    """The moments of one feedback.

    Args:
        features: Of the query, at least one.
        loss: Of the model, in [0, 1].

    >>> moments_of([2.0], 0.5)
    (1.0, 0.5, 2.0, 4.0, 1.0)

    Source: Draper and Smith, "Applied Regression Analysis", 3rd edition, 1998, section 4.1 (the normal equations).
    """
    x = (1.0, *features)
    found: list[float] = []
    for place, value in enumerate(x):
        found += [value * before for before in x[: place + 1]]
        found.append(loss * value)
    return tuple(found)


def added(first: Moments, second: Moments) -> Moments:
    """The sum of two tuples of moments; the shorter one is padded with zeros.

    >>> added((1.0, 0.5), moments_of([2.0], 0.5))
    (2.0, 1.0, 2.0, 4.0, 1.0)
    """
    return tuple([one + other for one, other in zip_longest(first, second, fillvalue=0.0)])


def width_of(moments: Moments) -> int:
    """Length of the vector x whose moments these are, 0 without any.

    >>> width_of(()), width_of(moments_of([0.0], 0.0))
    (0, 2)
    """
    return (isqrt(9 + 8 * len(moments)) - 3) // 2


def normal_equations(moments: Moments, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sums of x x^T, of shape (width, width), and of loss x, of shape (width,).

    Args:
        moments: Of one model.
        width: Of x, at least `width_of` the moments; the rest is 0.

    >>> matrix, vector = normal_equations(moments_of([2.0], 0.5), 3)
    >>> matrix[1].tolist(), vector.tolist()
    ([2.0, 4.0, 0.0], [0.5, 1.0, 0.0])
    """
    matrix, vector = np.zeros((width, width)), np.zeros(width)
    first = 0
    for place in range(width_of(moments)):
        last = first + place + 1
        matrix[place, : place + 1] = matrix[: place + 1, place] = moments[first:last]
        vector[place] = moments[last]
        first = last + 1
    return matrix, vector
