"""Applications with much history: what a new version costs them, and how long a partition without feedback is heard."""

import random
from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial
from typing import Any

from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import ModelTotals, SelectionState, merge

POLICIES = ("epsilon_greedy", "thompson", "tsallis_inf", "exp3", "exp4", "lin_ucb")
HISTORIES = (1e4, 1e8)
FEEDBACKS = 2_000
OLD = {"a:1": 0.1, "b:1": 0.3}
BAD, GOOD = 0.5, 0.02
PARTITIONS, SETTLED, OTHERS, BROKEN = 4, 2_000, 0.4, 0.5


def costs(seeds: int, pool: Executor) -> Iterator[str]:
    """What a version that joins costs, by the length of the history."""
    yield "## What a version that joins costs\n"
    yield f"Two versions lose {OLD['a:1']} and {OLD['b:1']}, with a history of so many feedbacks. Bad: one joins that"
    yield f"loses {BAD}; how much it loses more than the best in {FEEDBACKS:,} feedbacks. Good: one joins that loses"
    yield f"{GOOD}; after how many feedbacks it has half of the weight. Defaults, and means of {seeds} seeds.\n"
    heads = [f"{what}, {one:,.0f}" for what in ("bad", "good") for one in HISTORIES]
    yield f"| policy | {' | '.join(heads)} |"
    yield "|---|---|---|---|---|"
    for name in POLICIES:
        cells = []
        for loss in (BAD, GOOD):
            for history in HISTORIES:
                found = [*pool.map(partial(joined, name, history, loss), range(seeds))]
                cells.append(sum(one[loss == GOOD] for one in found) / seeds)
        yield f"| `{name}` | {' | '.join(f'{cell:,.0f}' for cell in cells)} |"


def joined(name: str, history: float, loss: float, seed: int) -> tuple[float, int]:
    """The newcomer's cost, and after how many feedbacks it has half of the weight."""
    draw, policy, means = random.Random(seed), make_policy(name), {**OLD, "new:1": loss}
    state = SelectionState(
        {
            "a:1": ModelTotals(0.95 * history, 0.095 * history, history, 0.1 * history),
            "b:1": ModelTotals(0.05 * history, 0.015 * history, history, 0.3 * history),
        }
    )
    cost, half = 0.0, FEEDBACKS
    for number in range(FEEDBACKS):
        prepared = policy.prepare(state, list(means))
        weight = prepared.weights["new:1"]
        cost += weight * max(0.0, loss - OLD["a:1"])
        half = min(half, number) if weight > 0.5 else half
        decision = prepared.select(draw)
        losses = {ref: float(draw.random() < means[ref]) for ref in decision.models}
        state = policy.observe(state, losses, dict(zip(decision.models, decision.propensities, strict=True)))
    return cost, half


def silences(seeds: int) -> Iterator[str]:
    """How the weight of a version that breaks falls, where one of four partitions hears no more."""
    yield "## When a partition has no feedback any more\n"
    yield f"`exp3` in {PARTITIONS} partitions, four feedbacks a second. After {SETTLED:,} feedbacks one of three"
    yield f"versions loses {BROKEN} and no more 0.05, the others {OTHERS} as before. Feedbacks until it has less than"
    yield "half of the weight, and its weight after 2,000: with feedback in all partitions, and with none in one of"
    yield f"them from then on. Means of {seeds} seeds.\n"
    yield "| forgets by | all partitions | weight then | one is silent | weight then |"
    yield "|---|---|---|---|---|"
    for said, given in (("`half_life` 100", {"half_life": 100.0}), ("`half_life_s` 100", {"half_life_s": 100.0})):
        cells = []
        for silent in (False, True):
            found = [broken(make_policy("exp3", given), seed, silent=silent) for seed in range(seeds)]
            until, weight = (sum(column) / seeds for column in zip(*found, strict=True))
            cells.append(f"{until:,.0f} | {weight:.3f}")
        yield f"| {said} | {' | '.join(cells)} |"


def broken(policy: SelectionPolicy, seed: int, *, silent: bool) -> tuple[int, float]:
    """Feedbacks until the broken version has less than half of the weight, and its weight in the end."""
    draw, means = random.Random(seed), {"a:1": 0.05, "b:1": OTHERS, "c:1": OTHERS}
    parts: list[Any] = [SelectionState()] * PARTITIONS
    prepared, until, last = policy.prepare(SelectionState(), list(means)), 0, SETTLED + 2_000
    for number in range(last):
        if number == SETTLED:
            means["a:1"] = BROKEN
        heard = PARTITIONS - 1 if silent and number >= SETTLED else PARTITIONS
        decision, partition = prepared.select(draw), draw.randrange(heard)
        losses = {ref: float(draw.random() < means[ref]) for ref in decision.models}
        chances = dict(zip(decision.models, decision.propensities, strict=True))
        parts[partition] = policy.observe_at(250 * (number + 1), parts[partition], losses, chances)
        prepared = policy.prepare(merge(parts), list(means))
        if number >= SETTLED and prepared.weights["a:1"] >= 0.5:
            until = number - SETTLED + 1
    return until, prepared.weights["a:1"]
