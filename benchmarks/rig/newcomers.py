"""How long a policy takes to find out that a version that joins later is the best."""

import random
from collections.abc import Sequence

from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState

OLD, NEW = {"a:1": 0.20, "b:1": 0.25}, {"c:1": 0.10}
"""Mean loss of the two that were there, and of the one that joins."""
JOINS_AFTER = 2_000


def feedbacks_to_lead(policy: SelectionPolicy, seed: int, within: int) -> int | None:
    """Feedbacks after it joined until the newcomer has the largest weight and keeps it; None: it does not keep it.

    Args:
        policy: With its parameters.
        seed: Of whom is asked, and of who errs.
        within: How many feedbacks are simulated after it joined.
    """
    draw = random.Random(seed)
    state = SelectionState()
    for _ in range(JOINS_AFTER):
        state = learned(policy, state, OLD, draw)
    lost, means = 0, OLD | NEW
    models = list(means)
    for number in range(1, within + 1):
        state = learned(policy, state, means, draw)
        weights = policy.weights(state, models)
        if max(weights, key=weights.__getitem__) not in NEW:
            lost = number
    return lost + 1 if lost < within else None


def learned(
    policy: SelectionPolicy, state: SelectionState, means: dict[str, float], draw: random.Random
) -> SelectionState:
    """One query, and a label for it."""
    decision = policy.select(state, list(means), draw)
    asked: Sequence[str] = decision.models
    losses = {model: float(draw.random() < means[model]) for model in asked}
    return policy.observe(state, losses, dict(zip(asked, decision.propensities, strict=True)))
