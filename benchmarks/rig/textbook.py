"""Bandits as their papers have them, on arms and rounds alone: what the policies are held against.

Rules of this file:
- Nothing of the product is used but the worlds. Ties go to the first arm.
- `keep` below 1 discounts every sum before a feedback, as discounted versions of these rules do.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rig.worlds import Floats, World

Rng = np.random.Generator


@dataclass(slots=True)
class Sums:
    """What is known of K arms.

    Attributes:
        arms: K.
        keep: What each feedback leaves of the sums before it.
    """

    arms: int
    keep: float = 1.0
    count: Floats = field(init=False)
    loss: Floats = field(init=False)
    weighted: Floats = field(init=False)
    rounds: float = 0.0

    def __post_init__(self) -> None:
        self.count, self.loss, self.weighted = (np.zeros(self.arms) for _ in range(3))

    def add(self, arm: int, loss: float, chance: float) -> None:
        if self.keep != 1.0:
            self.count *= self.keep
            self.loss *= self.keep
            self.weighted *= self.keep
        self.rounds = self.rounds * self.keep + 1.0
        self.count[arm] += 1.0
        self.loss[arm] += loss
        self.weighted[arm] += loss / chance

    @property
    def means(self) -> Floats:
        return np.divide(self.loss, self.count, out=np.full(self.arms, -math.inf), where=self.count > 0.0)


def epsilon_greedy(sums: Sums, _: Rng) -> Floats:
    """Sutton and Barto (2018), section 2.4, with an epsilon of 0.1."""
    return 0.9 * _only(sums.means.argmin(), sums.arms) + 0.1 / sums.arms


def thompson(sums: Sums, rng: Rng) -> Floats:
    """Kaufmann, Korda and Munos (2012): the least of draws from Beta posteriors of a uniform prior."""
    return _only(rng.beta(1.0 + sums.loss, 1.0 + np.maximum(0.0, sums.count - sums.loss)).argmin(), sums.arms)


def tsallis_inf(sums: Sums, _: Rng) -> Floats:
    """Zimmert and Seldin (2021), algorithm 1 with importance weights; x by bisection."""
    rate = 2.0 / math.sqrt(max(1.0, sums.rounds))
    least = sums.weighted.min()
    low, high = least - 2.0 * math.sqrt(sums.arms) / rate, least - 2.0 / rate
    for _step in range(50):
        middle = 0.5 * (low + high)
        over = (4.0 / (rate * (sums.weighted - middle)) ** 2).sum() > 1.0
        low, high = (low, middle) if over else (middle, high)
    weights: Floats = 4.0 / (rate * (sums.weighted - low)) ** 2
    return weights / weights.sum()


def exponential(eta: float, exploration: float) -> Callable[[Sums, Rng], Floats]:
    """Auer et al. (2002)."""

    def rule(sums: Sums, _: Rng) -> Floats:
        parts = np.exp(-eta * (sums.weighted - sums.weighted.min()))
        shares: Floats = (1.0 - exploration) * parts / parts.sum() + exploration / sums.arms
        return shares

    return rule


def _only(arm: Any, arms: int) -> Floats:
    return np.eye(arms)[arm]


RULES: dict[str, Callable[[Sums, Rng], Floats]] = {
    "epsilon_greedy": epsilon_greedy,
    "thompson": thompson,
    "tsallis_inf": tsallis_inf,
    "exp3": exponential(0.1, 0.05),
}
"""By the policy's name: the rule with that policy's defaults."""


def textbook_regret(name: str, world: World, seed: int, half_life: float | None = None) -> float:
    """Pseudo-regret after all queries, as `rig.worlds.cumulative_regret` counts it."""
    rng, means = np.random.default_rng(seed), world.means
    rule = RULES[name]
    sums = Sums(means.shape[1], 1.0 if half_life is None else 0.5 ** (1.0 / half_life))
    due = np.zeros(len(means), int) if world.due is None else world.due(rng)
    waiting: dict[int, list[tuple[int, float, float]]] = defaultdict(list)
    best = means.min(axis=1) if world.moving else means[:, means.sum(axis=0).argmin()]
    regret, shares = 0.0, rule(sums, rng)
    for query, loses in enumerate(means):
        regret += float(shares @ loses - best[query])
        arm = int(rng.choice(sums.arms, p=shares))
        waiting[query + int(due[query])].append((arm, float(rng.random() < loses[arm]), float(shares[arm])))
        for said in waiting.pop(query, ()):
            sums.add(*said)
        shares = rule(sums, rng)
    return regret


def lin_ucb_regret(world: "FeatureWorld", seed: int) -> float:
    """Of Li, Chu, Langford and Schapire (2010), algorithm 1, with alpha 1."""
    rng = np.random.default_rng(seed)
    features, means = world.queries(rng)
    arms, width = means.shape[1], features.shape[1]
    matrices, vectors, regret = np.tile(np.eye(width), (arms, 1, 1)), np.zeros((arms, width)), 0.0
    for x, loses in zip(features, means, strict=True):
        inverse = np.linalg.inv(matrices)
        bounds = np.einsum("kij,kj,i->k", inverse, vectors, x) - np.sqrt(np.einsum("i,kij,j->k", x, inverse, x))
        arm = int(bounds.argmin())
        regret += float(loses[arm] - loses.min())
        matrices[arm] += np.outer(x, x)
        vectors[arm] += float(rng.random() < loses[arm]) * x
    return regret


@dataclass(frozen=True, slots=True)
class FeatureWorld:
    """Queries with two features in [-1, 1]; each of K arms is the best for some of them."""

    count: int
    arms: int = 4

    def queries(self, rng: Rng) -> tuple[Floats, Floats]:
        """(1, features) of each query, (T, 3), and the mean loss of each arm, 0.5 in the middle, (T, K)."""
        features = rng.uniform(-1.0, 1.0, (self.count, 2))
        turn = 2.0 * math.pi * np.arange(self.arms) / self.arms
        slopes = 0.3 * np.stack([np.cos(turn), np.sin(turn)])
        return np.hstack([np.ones((self.count, 1)), features]), 0.5 + features @ slopes
