"""What a run draws before its first query: send times, rows, contexts and the delays of feedback.

An open loop sends at these times whatever the answers do, and a latency counts from the time that stands here. A
stall then delays, and is counted for, every query that was due during it: no pipeline can slow its own load down.

Rules of this file:
- The draws depend on the plan, the number of rows and the seed, on nothing else.
- Each draw has a generator of its own, so that changing one leaves the others as they were.

Source: Schroeder, Wierman, Harchol-Balter, "Open Versus Closed: A Cautionary Tale", NSDI 2006.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]


def arrival_times(kind: str, rate_per_s: float, duration_s: float, seed: int) -> list[float]:
    """Intended send times, in seconds from the start of the run, ascending, all in [0, duration_s).

    The kind is `constant`, or `poisson`: many users, none of whom knows of the others.

    >>> arrival_times("constant", 4.0, 1.0, seed=0)
    [0.0, 0.25, 0.5, 0.75]
    """
    times: list[float]
    if kind == "constant":
        times = (np.arange(round(rate_per_s * duration_s)) / rate_per_s).tolist()
    else:  # given their number, the times of a Poisson process are uniform and independent
        rng = np.random.default_rng([seed, 1])
        times = np.sort(rng.uniform(0.0, duration_s, rng.poisson(rate_per_s * duration_s))).tolist()
    return times


def feedback_delays(mean_s: float, count: int, seed: int) -> list[float]:
    """Seconds from the answer to the feedback of each query, exponential: the long tail of people."""
    delays: list[float] = np.random.default_rng([seed, 2]).exponential(mean_s, count).tolist()
    return delays


def repeated_from(count: int, repeat_ratio: float, recent: int, seed: int) -> IntArray:
    """For each query the earlier one whose input it repeats, itself where its input is fresh, as the first one's is.

    A query repeats with probability `repeat_ratio`, one that is drawn uniformly from the `recent` ones before it.
    """
    rng, position = np.random.default_rng([seed, 4]), np.arange(count)
    back = 1 + np.floor(rng.random(count) * np.clip(position, 1, recent)).astype(np.int64)
    repeats = (rng.random(count) < repeat_ratio) & (position > 0)
    return np.where(repeats, position - back, position)


def fresh_count(origin: IntArray) -> int:
    """Number of queries whose input is not drawn from earlier ones."""
    return int((origin == np.arange(len(origin))).sum())


def row_of_each(origin: IntArray, row_count: int, seed: int) -> list[int]:
    """A row a query: fresh ones go through all rows in a new order each time round, repeats take their origin's."""
    rng, rounds = np.random.default_rng([seed, 5]), -(-fresh_count(origin) // row_count)
    order = np.concatenate([rng.permutation(row_count) for _ in range(rounds)] or [np.empty(0, np.int64)]).tolist()
    upcoming = iter(order)
    rows: list[int] = []
    for query, source in enumerate(origin.tolist()):
        rows.append(next(upcoming) if source == query else rows[source])
    return rows


def contexts_of(count: int, contexts: int, seed: int) -> list[int]:
    """A context a query, each as likely as any other."""
    drawn: list[int] = np.random.default_rng([seed, 6]).integers(0, contexts, count).tolist()
    return drawn
