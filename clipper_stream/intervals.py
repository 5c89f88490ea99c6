"""95 % intervals of a mean loss by a formula.

`wilson` is right for one look. A rule that looks again and again needs
`clipper_stream.sequential_testing`.
"""

import math
from typing import TypeAlias

Z = 1.959963984540054
"""Quantile of the normal distribution for 95 %."""

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
