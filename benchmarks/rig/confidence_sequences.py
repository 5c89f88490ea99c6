"""The same sequences for many runs at once, for simulations: a row a run, a column an observation.

>>> import numpy as np
>>> above, below = capitals(np.zeros((3, 40)), mean=0.5, alpha=0.05)
>>> above.shape, bool((below[:, -1] >= goal(0.05)).all())
((3, 40), True)
"""

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from clipper_stream.sequential_testing import empirical_bernstein, hedged_capital

Floats: TypeAlias = npt.NDArray[np.float64]


def goal(alpha: float) -> float:
    """Logarithm of the capital at which a mean is ruled out."""
    return math.log(2.0 / alpha)


def bets(values: Floats, alpha: float) -> tuple[Floats, Floats]:
    """What `PlugIn` says before each observation.

    Args:
        values: Observations in [0, 1], shape (runs, n).
        alpha: As `ConfidenceSequence.alpha`.

    Returns:
        Bets before they are bounded, and means, each of shape (runs, n).
    """
    ahead = np.arange(1.0, values.shape[1] + 1)
    totals = 0.5 + np.cumsum(values, axis=1)
    squares = 0.25 + np.cumsum((values - totals / (ahead + 1)) ** 2, axis=1)
    before = np.full((len(values), 1), 0.25)
    means = np.concatenate([np.full((len(values), 1), 0.5), (totals / (ahead + 1))[:, :-1]], axis=1)
    squares = np.concatenate([before, squares[:, :-1]], axis=1)
    return np.sqrt(2.0 * goal(alpha) / (squares * np.log1p(ahead))), means


def capitals(values: Floats, mean: float, alpha: float) -> tuple[Floats, Floats]:
    """Logarithms of what the two players against one mean have, after each observation.

    The interval of `Betting` lies above the mean once the first has reached `goal`, and below it once the second has.

    Args:
        values: Observations in [0, 1], shape (runs, n).
        mean: In [0, 1].
        alpha: As `ConfidenceSequence.alpha`.
    """
    bet, _ = bets(values, alpha)
    most_above = hedged_capital.LARGEST_BET / mean if mean > 0.0 else math.inf
    most_below = hedged_capital.LARGEST_BET / (1.0 - mean) if mean < 1.0 else math.inf
    above = np.cumsum(np.log1p(np.minimum(bet, most_above) * (values - mean)), axis=1)
    below = np.cumsum(np.log1p(np.minimum(bet, most_below) * (mean - values)), axis=1)
    return above, below


def bernstein_bounds(values: Floats, alpha: float) -> tuple[Floats, Floats]:
    """Ends of `EmpiricalBernstein` after each observation.

    Args:
        values: Observations in [0, 1], shape (runs, n).
        alpha: As `ConfidenceSequence.alpha`.
    """
    bet, means = bets(values, alpha)
    bet = np.minimum(bet, empirical_bernstein.LARGEST_BET)
    total = np.cumsum(bet, axis=1)
    centre = np.cumsum(bet * values, axis=1) / total
    spread = np.cumsum((values - means) ** 2 * (-np.log1p(-bet) - bet), axis=1)
    radius = (goal(alpha) + spread) / total
    lower = np.maximum.accumulate(centre - radius, axis=1)
    upper = np.minimum.accumulate(centre + radius, axis=1)
    return np.maximum(lower, 0.0), np.minimum(upper, 1.0)
