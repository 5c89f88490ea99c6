"""Which row and which context each query has, drawn before the run.

Rules of this file:
- The draws depend on the plan, the number of rows and the seed, on nothing else.
- Rows, contexts and label noise have generators of their own, so that changing one leaves the others as they were.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clipper_loadgen.datasets import Dataset

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One row, context and label a query.

    Attributes:
        rows: Index of each query's row.
        contexts: Index of each query's context; None for an application without contexts.
        labels: What the feedback of each query says; None where the truth is not known.
    """

    rows: list[int]
    contexts: list[int] | None
    labels: list[Any] | None


def repeated_from(count: int, repeat_ratio: float, recent: int, rng: np.random.Generator) -> IntArray:
    """For each query the earlier query whose input it repeats, itself where its input is fresh.

    Args:
        count: Number of queries.
        repeat_ratio: Probability of a repeat, in [0, 1]. The first query is always fresh.
        recent: A repeat is drawn uniformly from so many queries before it.
        rng: Drawn from twice a query.
    """
    position = np.arange(count)
    back = 1 + np.floor(rng.random(count) * np.clip(position, 1, recent)).astype(np.int64)
    repeats = (rng.random(count) < repeat_ratio) & (position > 0)
    return np.where(repeats, position - back, position)


def fresh_count(origin: IntArray) -> int:
    """Number of queries whose input is not drawn from earlier ones."""
    return int((origin == np.arange(len(origin))).sum())


def draw_rows(origin: IntArray, row_count: int, rng: np.random.Generator) -> list[int]:
    """A row a query: fresh ones go through all rows in a new order each time round, repeats take their origin's."""
    rounds = -(-fresh_count(origin) // row_count)
    order = np.concatenate([rng.permutation(row_count) for _ in range(rounds)] or [np.empty(0, np.int64)]).tolist()
    upcoming = iter(order)
    rows: list[int] = []
    for query, source in enumerate(origin.tolist()):
        rows.append(next(upcoming) if source == query else rows[source])
    return rows


def zipf_contexts(count: int, contexts: int, exponent: float, rng: np.random.Generator) -> IntArray:
    """Contexts with probability proportional to 1 / rank ** exponent; exponent 0 is uniform.

    Args:
        count: Number of queries.
        contexts: Number of contexts, at least 1; context 0 is the most frequent.
        exponent: Skew, at least 0; about 1 for words, users and pages.
        rng: Drawn from once a query.

    Source: Zipf's law over a finite set, as in Breslau et al., "Web Caching and Zipf-like Distributions", 1999.
    """
    weights = np.arange(1, contexts + 1, dtype=np.float64) ** -exponent
    cumulative = np.cumsum(weights) / weights.sum()
    cumulative[-1] = 1.0
    return np.searchsorted(cumulative, rng.random(count), side="right").astype(np.int64)


def noisy_labels(labels: Sequence[Any], pool: Sequence[Any], noise_ratio: float, rng: np.random.Generator) -> list[Any]:
    """The labels, each replaced with probability `noise_ratio` by another one of the pool.

    Args:
        labels: The true labels.
        pool: The distinct labels that there are.
        noise_ratio: Share of wrong labels, in [0, 1]; without effect where the pool has one label.
        rng: Drawn from for each label.
    """
    wrong = rng.random(len(labels)) < noise_ratio
    steps = rng.integers(1, max(2, len(pool)), len(labels))
    place = {repr(label): index for index, label in enumerate(pool)}
    return [
        pool[(place[repr(label)] + int(step)) % len(pool)] if flipped else label
        for label, flipped, step in zip(labels, wrong, steps, strict=True)
    ]


def draw_workload(
    dataset: Dataset, origin: IntArray, *, contexts: int, zipf_exponent: float, noise_ratio: float, seed: int
) -> Workload:
    """A workload over a data set; `origin` is what `repeated_from` drew."""
    count = len(origin)
    rows = draw_rows(origin, len(dataset.rows), np.random.default_rng([seed, 5]))
    drawn = (
        zipf_contexts(count, contexts, zipf_exponent, np.random.default_rng([seed, 6])).tolist() if contexts else None
    )
    if dataset.labels is None:
        return Workload(rows=rows, contexts=drawn, labels=None)
    known = [dataset.label(row) for row in range(len(dataset.labels))]
    pool = list({repr(label): label for label in known}.values())
    labels = [known[row] for row in rows]
    noisy = noisy_labels(labels, pool, noise_ratio, np.random.default_rng([seed, 7]))
    return Workload(rows=rows, contexts=drawn, labels=noisy)
