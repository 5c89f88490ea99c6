"""Worlds that a policy is tried in, and what it loses there more than the best model."""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipper_stream.selection.distribution import ActionDistribution
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState

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


def compared_worlds(queries: int) -> list[World]:
    """Those in which the policies stand beside their papers' rules."""
    one, late, at = steady(queries, 0.2), 2 * LATE, np.arange(queries)
    turns = np.where(np.arange(MODELS) == (at >= queries // 2)[:, None], GOOD, BAD)
    return [
        World(name="gap 0.1", says=f"one of {MODELS} models loses {GOOD}, the others 0.2", means=one),
        World(name="gap 0.02", says="the others 0.12", means=steady(queries, 0.12)),
        World(
            name="late",
            says=f"gap 0.1, feedback {late:,} queries late",
            means=one,
            due=lambda _: np.full(queries, late),
        ),
        World(name="switch", says=f"gap {BAD - GOOD:.1f}, another best from the middle on", means=turns, moving=True),
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


Feedback = tuple[dict[str, float], dict[str, float]]
"""Losses and propensities of the models that were asked."""


def cumulative_regret(policy: SelectionPolicy, world: World, seed: int) -> Floats:
    """Pseudo-regret after each query: with probabilities and mean losses in the place of what was drawn, (T,).

    An ensemble is charged the mean of all losses by its weights, which is what the bounds of Hedge are about.

    Args:
        policy: With its parameters.
        world: What it is tried in.
        seed: Of whom is asked, of losses and of delays.
    """
    asked, means = played(policy, world, seed)
    best = means.min(axis=1) if world.moving else means[:, means.sum(axis=0).argmin()]
    return np.cumsum((asked * means).sum(axis=1) - best)


def played(policy: SelectionPolicy, world: World, seed: int) -> tuple[Floats, Floats]:
    """Probability of each model to answer each query, and what it loses on average, both (T, K)."""
    draw, rng = random.Random(seed), np.random.default_rng(seed)
    queries, models = len(world.means), world.models
    means, asked = world.means.copy(), np.empty_like(world.means)
    losses = (rng.random(means.shape) < means).astype(float)
    due = np.zeros(queries, int) if world.due is None else world.due(rng)
    waiting: dict[int, list[Feedback]] = defaultdict(list)
    state = SelectionState()
    prepared = policy.prepare(state, models)
    shares = answering(prepared)
    for query in range(queries):
        asked[query] = shares
        if world.knowing:
            means[query] = losses[query] = 0.0
            means[query, shares.argmax()] = losses[query, shares.argmax()] = 1.0
        decision = prepared.select(draw)
        told = {model: float(losses[query, models.index(model)]) for model in decision.models}
        chances = dict(zip(decision.models, decision.propensities, strict=True))
        waiting[query + int(due[query])].append((told, chances))
        if query in waiting:
            for loss, propensities in waiting.pop(query):
                state = policy.observe(state, loss, propensities)
            prepared = policy.prepare(state, models)
            shares = answering(prepared)
    return asked, means


def answering(prepared: ActionDistribution) -> Floats:
    """Probability of each candidate to make the answer; of an ensemble its part in it, (K,)."""
    if prepared.certain is not None and len(prepared.certain.served) > 1:
        return np.array(list(prepared.weights.values()))
    served: Mapping[str, float] = {one.served[0]: one.served_propensity for one in prepared.decisions}
    return np.array([served.get(model, 0.0) for model in prepared.weights])
