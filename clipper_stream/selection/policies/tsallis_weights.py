"""Weights of the Tsallis-INF family that are fair to models with less history than others.

Follow-the-regularised-leader with the regulariser sqrt(t) (-2 sum sqrt(x) + g sum x log x) gives model i the weight
x_i with

    h(x_i) = level + score_i / sqrt(t),    h(x) = 1 / sqrt(x) - g log x,    sum of all x_i = 1

where only differences of scores matter. As in `exponential`, what a model missed is charged at par: score_i is
weighted_loss_i - weighted_count_i par, and a model without history has the score 0. Par is where it has the weight 1 /
M of M candidates, which is the mean of the others. So the level is h(1 / M), and one equation is left, for par:

    sum over the K models with a history of x_i = K / M

Its left side is convex and increasing in par. Newton's method started where the first of these models alone would have
K / M, which is right of the root, comes down to it without overshooting. Where all have the same history par drops
out, and these are the weights of the papers.

Source: Zimmert and Seldin, "Tsallis-INF: an optimal algorithm for stochastic and adversarial bandits", JMLR 22, 2021,
algorithm 1; Zimmert and Seldin, "An optimal algorithm for adversarial bandits with arbitrary delays", AISTATS 2020,
section 3 (g is what delay adds).
"""

import math
from collections.abc import Sequence

from clipper_stream.selection.state import ModelTotals, SelectionState

_FORGOTTEN = 1e-9  # feedbacks; a model of which a discount has left less is as good as new
_STEPS = 100  # Newton needs 3 to 8 here; the bound only guarantees an end
_PRECISE = 1e-12  # of a sum of weights


def tsallis_weights(
    state: SelectionState, candidates: Sequence[str], rounds: float, entropy: float = 0.0
) -> dict[str, float]:
    """Weight of each candidate, summing to 1.

    Args:
        state: Totals of all models.
        candidates: At least one, in the application's order.
        rounds: t, > 0: how much loss tells two models apart grows with its root.
        entropy: g, >= 0: the share of the Shannon entropy in the regulariser.

    >>> state = SelectionState({"a:1": ModelTotals(9.0, 0.0, 9.0, 0.0), "b:1": ModelTotals(9.0, 9.0, 9.0, 9.0)})
    >>> weights = tsallis_weights(state, ["a:1", "b:1", "new:1"], rounds=18.0)
    >>> round(weights["new:1"], 9) == round((weights["a:1"] + weights["b:1"]) / 2, 9)
    True
    """
    mean = 1.0 / len(candidates)
    totals = [state.of(model) for model in candidates]
    known = [one for one in totals if one.weighted_count > _FORGOTTEN]
    level, root = _h(mean, entropy), math.sqrt(rounds)
    par = _par(known, mean, root, entropy)
    parts = [_inverse(level + (one.weighted_loss - par * one.weighted_count) / root, entropy) for one in totals]
    total = sum(parts)
    return {model: part / total for model, part in zip(candidates, parts, strict=True)}


def _par(known: Sequence[ModelTotals], mean: float, root: float, entropy: float) -> float:
    """The loss a feedback at which models have the mean weight; 0 when none has a history."""
    if not known:
        return 0.0
    level, goal = _h(mean, entropy), mean * len(known)
    ahead = root * (level - _h(goal, entropy))
    par = min((one.weighted_loss + ahead) / one.weighted_count for one in known)
    for _ in range(_STEPS):
        value, slope = -goal, 0.0
        for one in known:
            part = _inverse(level + (one.weighted_loss - par * one.weighted_count) / root, entropy)
            value += part
            slope += one.weighted_count * part / (0.5 / math.sqrt(part) + entropy)
        step = value * root / slope
        if value <= _PRECISE or par - step == par:
            break
        par -= step
    return par


def _h(weight: float, entropy: float) -> float:
    return 1.0 / math.sqrt(weight) - entropy * math.log(weight)


def _inverse(value: float, entropy: float) -> float:
    """The weight whose h is the value, which is at least h(1) = 1 but for rounding.

    With y = log x it is the root of a convex, falling function. Both exp(-y / 2) and -g y alone are at most the value,
    so the larger of the two bounds is left of it, from where Newton's method does not overshoot.
    """
    value = max(value, 1.0)
    if entropy == 0.0:
        return value**-2
    log = max(-2.0 * math.log(value), -value / entropy)
    for _ in range(_STEPS):
        inverse_root = math.exp(-0.5 * log)
        step = (inverse_root - entropy * log - value) / (0.5 * inverse_root + entropy)
        log += step
        if step <= _PRECISE:
            break
    return math.exp(log)
