"""A policy of the registry in a world: what it loses more than the best model."""

import random
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from rig.worlds import Floats, World

from clipper_stream.selection.distribution import ActionDistribution
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState

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
