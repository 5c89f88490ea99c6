"""How long after its answer a query's feedback comes: a distribution with a given mean."""

from collections.abc import Callable

import numpy as np

from clipper_loadgen.arrivals import FloatArray
from clipper_stream.errors import UnknownName


def _constant(mean_s: float, count: int, rng: np.random.Generator) -> FloatArray:
    del rng
    return np.full(count, mean_s)


def _exponential(mean_s: float, count: int, rng: np.random.Generator) -> FloatArray:
    return rng.exponential(mean_s, count)


def _uniform(mean_s: float, count: int, rng: np.random.Generator) -> FloatArray:
    return rng.uniform(0.0, 2.0 * mean_s, count)


DISTRIBUTIONS: dict[str, Callable[[float, int, np.random.Generator], FloatArray]] = {
    "constant": _constant,
    "exponential": _exponential,
    "uniform": _uniform,
}
"""`exponential` has the long tail of people; `uniform` lies in [0, 2 mean]."""


def draw_delays(kind: str, mean_s: float, count: int, seed: int) -> FloatArray:
    """One delay a query, in seconds.

    >>> draw_delays("constant", 0.05, 3, seed=0).tolist()
    [0.05, 0.05, 0.05]

    Raises:
        UnknownName: no distribution of this name.
    """
    if kind not in DISTRIBUTIONS:
        raise UnknownName(f"feedback distribution {kind!r}: use one of {', '.join(sorted(DISTRIBUTIONS))}")
    return DISTRIBUTIONS[kind](mean_s, count, np.random.default_rng([seed, 2]))
