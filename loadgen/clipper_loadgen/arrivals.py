"""When queries are sent: times fixed before the run, so that a slow pipeline cannot slow its own load down.

An open loop sends at these times whatever the answers do, and a latency counts from the time that stands here. A
stall then delays, and is counted for, every query that was due during it.

Source: Schroeder, Wierman, Harchol-Balter, "Open Versus Closed: A Cautionary Tale", NSDI 2006.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from clipper_stream.errors import UnknownName

FloatArray: TypeAlias = npt.NDArray[np.float64]


def constant(rate_per_s: float, duration_s: float, rng: np.random.Generator) -> FloatArray:
    """Evenly spaced times, the first at zero; draws nothing.

    >>> constant(4.0, 1.0, np.random.default_rng(0)).tolist()
    [0.0, 0.25, 0.5, 0.75]
    """
    del rng
    return np.arange(round(rate_per_s * duration_s), dtype=np.float64) / rate_per_s


def poisson(rate_per_s: float, duration_s: float, rng: np.random.Generator) -> FloatArray:
    """Times of a Poisson process: many independent users, none of whom knows of the others.

    Given their number, the times of a Poisson process are uniform and independent, so the number is drawn first.
    """
    count = rng.poisson(rate_per_s * duration_s)
    return np.sort(rng.uniform(0.0, duration_s, count))


ARRIVALS: dict[str, Callable[[float, float, np.random.Generator], FloatArray]] = {
    "constant": constant,
    "poisson": poisson,
}


def arrival_times(kind: str, rate_per_s: float, duration_s: float, seed: int) -> FloatArray:
    """Intended send times, in seconds from the start of the run, ascending, all in [0, duration_s).

    Args:
        kind: A name in `ARRIVALS`.
        rate_per_s: Mean queries a second, above 0.
        duration_s: Length of the run in seconds, above 0.
        seed: The same seed gives the same times.

    Raises:
        UnknownName: no arrivals of this kind.
    """
    if kind not in ARRIVALS:
        raise UnknownName(f"arrivals {kind!r}: use one of {', '.join(sorted(ARRIVALS))}")
    return ARRIVALS[kind](rate_per_s, duration_s, np.random.default_rng([seed, 1]))
