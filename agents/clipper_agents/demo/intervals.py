"""How sure a share of errors is."""

import math

import numpy as np
import numpy.typing as npt

from clipper_agents.status.intervals import Interval, Z, wilson

__all__ = ["BoolArray", "Interval", "paired", "wilson"]

BoolArray = npt.NDArray[np.bool_]


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
