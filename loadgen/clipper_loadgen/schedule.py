"""When queries and their feedback are sent, drawn before the run: a slow pipeline cannot slow its own load down.

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


def _constant_delays(mean_s: float, count: int, rng: np.random.Generator) -> FloatArray:
    del rng
    return np.full(count, mean_s)


def _exponential_delays(mean_s: float, count: int, rng: np.random.Generator) -> FloatArray:
    return rng.exponential(mean_s, count)


def _uniform_delays(mean_s: float, count: int, rng: np.random.Generator) -> FloatArray:
    return rng.uniform(0.0, 2.0 * mean_s, count)


DELAYS: dict[str, Callable[[float, int, np.random.Generator], FloatArray]] = {
    "constant": _constant_delays,
    "exponential": _exponential_delays,
    "uniform": _uniform_delays,
}
"""`exponential` has the long tail of people; `uniform` lies in [0, 2 mean]."""


def draw_delays(kind: str, mean_s: float, count: int, seed: int) -> FloatArray:
    """Seconds from the answer to the feedback of each query.

    >>> draw_delays("constant", 0.05, 3, seed=0).tolist()
    [0.05, 0.05, 0.05]

    Raises:
        UnknownName: no distribution of this name.
    """
    if kind not in DELAYS:
        raise UnknownName(f"feedback distribution {kind!r}: use one of {', '.join(sorted(DELAYS))}")
    return DELAYS[kind](mean_s, count, np.random.default_rng([seed, 2]))
