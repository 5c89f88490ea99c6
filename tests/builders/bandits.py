"""A world of steady mean losses, small enough for a test, and a policy that learns in it."""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from clipper_stream.selection.distribution import ActionDistribution, Decision
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState
from clipper_stream.selection.trials import ChoiceWithTrials


def queries_of(
    policy: SelectionPolicy, means: Mapping[str, float], count: int, seed: int, state: SelectionState | None = None
) -> Iterator[tuple[dict[str, float], SelectionState]]:
    """After each query: with which probability it was to serve each model, and what is learned from it at once.

    Args:
        policy: Of a single choice.
        means: Mean loss of each model; a loss is 0 or 1.
        count: How many queries.
        seed: Of choices and losses.
        state: What was learned before.
    """
    draw, state, models = random.Random(seed), state or SelectionState(), list(means)
    for _ in range(count):
        prepared = policy.prepare(state, models)
        shares = dict.fromkeys(models, 0.0) | {one.served[0]: one.served_propensity for one in prepared.decisions}
        decision = prepared.select(draw)
        losses = {model: float(draw.random() < means[model]) for model in decision.models}
        state = policy.observe(state, losses, dict(zip(decision.models, decision.propensities, strict=True)))
        yield shares, state


def prepared_for(
    policy: SelectionPolicy, state: SelectionState, models: Sequence[str], features: Sequence[float]
) -> ActionDistribution:
    """The choice for a query with these features, empty for one without."""
    by_features = policy.by_features(state, models)
    return policy.prepare(state, models) if by_features is None else by_features.given(features)


def regret_of(policy: SelectionPolicy, means: Mapping[str, float], count: int, seed: int) -> float:
    """Pseudo-regret: what it loses more than the best model, on average over losses."""
    least = min(means.values())
    return sum(
        chance * (means[model] - least)
        for shares, _ in queries_of(policy, means, count, seed)
        for model, chance in shares.items()
    )


def outcomes(choice: ChoiceWithTrials) -> list[tuple[Decision, float]]:
    """Every decision that can be drawn, and its probability."""
    lengths = ([end - start for start, end in pairwise((0.0, *one.bounds, 1.0))] for one in (choice, choice.choice))
    tried, chosen = lengths
    return [
        (treatment.of(decision), tried_on * chance)
        for treatment, tried_on in zip(choice.treatments, tried, strict=True)
        for decision, chance in zip(choice.choice.decisions, chosen, strict=True)
    ]
