"""Worlds that a policy is tried in: what each model loses on each query, and when feedback comes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MODELS = 5
GOOD, BAD = 0.1, 0.3
LATE = 500
"""Decisions until feedback comes, where it is late."""
ADVERSARY_MODELS, ADVERSARY_GAP, ADVERSARY_GROWTH = 8, 0.125, 1.6
"""Of the stochastically constrained adversary, as published: models, gap, and growth of its phases."""
CHANGE, PERIOD = 2_000, 5_000
"""Queries until another model is the best, and of a wave of losses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What T queries are like.

    Attributes:
        name: As tables show it.
        says: What happens, in a few words.
        means: Mean loss of each of K models on each query, (T, K).
        due: Of a generator: how many queries later the feedback about each comes, (T,). None: before the next query.
        knowing: Losses are not drawn: the model with the largest probability loses 1, the others 0.
        moving: Regret is that to the best model of each query, not to the best one of all of them.
    """

    name: str
    says: str
    means: Floats
    due: Callable[[np.random.Generator], Ints] | None = None
    knowing: bool = False
    moving: bool = False

    @property
    def models(self) -> list[str]:
        """References of the models."""
        return [f"m{number}:1" for number in range(self.means.shape[1])]


def worlds(queries: int) -> list[World]:
    """All of them, of so many queries."""
    easy, at = steady(queries, BAD), np.arange(queries)
    batches = LATE - 1 - at % LATE
    return [
        World(name="easy", says=f"one of {MODELS} models loses {GOOD}, the others {BAD}", means=easy),
        World(name="close", says=f"one of {MODELS} models loses {GOOD}, the others 0.15", means=steady(queries, 0.15)),
        World(
            name="adversary",
            says=f"{ADVERSARY_MODELS} models; the best loses 0 and the others {ADVERSARY_GAP}, then"
            f" {1 - ADVERSARY_GAP} and 1, and so on in phases that grow by {ADVERSARY_GROWTH}",
            means=constrained(queries),
        ),
        World(
            name="knowing",
            says="the model that is asked with the largest probability loses 1, the others 0",
            means=np.zeros((queries, MODELS)),
            knowing=True,
        ),
        World(
            name="abrupt",
            says=f"the easy one, with another best model after every {CHANGE:,} queries",
            means=np.where(np.arange(MODELS) == (at // CHANGE % MODELS)[:, None], GOOD, BAD),
            moving=True,
        ),
        World(
            name="gradual",
            says=f"losses between 0.1 and 0.5 as waves of {PERIOD:,} queries, one after the other",
            means=0.3 + 0.2 * np.cos(2.0 * math.pi * (at[:, None] / PERIOD + np.arange(MODELS) / MODELS)),
            moving=True,
        ),
        World(
            name="late",
            says=f"the easy one, feedback {LATE} queries late",
            means=easy,
            due=lambda _: np.full(queries, LATE),
        ),
        World(
            name="geometric",
            says=f"the easy one, feedback late by a geometric number of queries, {LATE} on average",
            means=easy,
            due=lambda rng: rng.geometric(1.0 / LATE, queries),
        ),
        World(
            name="batches", says=f"the easy one, feedback after every {LATE} queries", means=easy, due=lambda _: batches
        ),
        World(
            name="knowing, late",
            says=f"the knowing one, feedback after every {LATE} queries",
            means=np.zeros((queries, MODELS)),
            due=lambda _: batches,
            knowing=True,
        ),
    ]


def steady(queries: int, bad: float) -> Floats:
    """The last model is the best: not the one that wins a tie."""
    return np.tile([bad] * (MODELS - 1) + [GOOD], (queries, 1))


def constrained(queries: int) -> Floats:
    """Of the stochastically constrained adversary: differences are steady, levels are not."""
    levels, length = [], 1.0
    while len(levels) < queries:
        high = 0.0 if not levels or levels[-1] else 1.0 - ADVERSARY_GAP
        levels += [high] * math.ceil(length)
        length *= ADVERSARY_GROWTH
    gaps = np.array([ADVERSARY_GAP] * (ADVERSARY_MODELS - 1) + [0.0])
    return np.array(levels[:queries])[:, None] + gaps
