"""How long a policy takes to find out that a version that joins later is the best."""

import random

from clipper_stream.selection.distribution import ActionDistribution
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState

OLD, NEW = {"a:1": 0.20, "b:1": 0.25}, {"c:1": 0.10}
"""Mean loss of the two that were there, and of the one that joins."""
MEANS = OLD | NEW
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
        state = learned(policy, state, policy.prepare(state, list(OLD)), draw)
    lost, models = 0, [*OLD, *NEW]
    for number in range(within + 1):
        prepared = policy.prepare(state, models)
        if max(prepared.weights, key=prepared.weights.__getitem__) not in NEW:
            lost = number + 1
        state = learned(policy, state, prepared, draw)
    return lost if lost <= within else None


def learned(
    policy: SelectionPolicy, state: SelectionState, prepared: ActionDistribution, draw: random.Random
) -> SelectionState:
    """One query, and a label for it."""
    decision = prepared.select(draw)
    losses = {model: float(draw.random() < MEANS[model]) for model in decision.models}
    return policy.observe(state, losses, dict(zip(decision.models, decision.propensities, strict=True)))
