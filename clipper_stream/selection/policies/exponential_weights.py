"""Exponential weights that are fair to models with less history than others.

A sum of losses compares models only if all were there all the time. A model that joined late, came back after a
rollback, or failed to answer in an ensemble has a smaller sum without being better. Its missing feedbacks are
therefore charged at *par*: the loss per feedback at which a model's weight would be the mean of the others' weights.

    score_i  = weighted_loss_i + (n - weighted_count_i) * par
    weight_i = exp(-eta * score_i) / sum_j exp(-eta * score_j)

where n is any number: it drops out. What follows:
- A model that joins has weighted_count 0, so exactly the mean weight, in one partition as in all. Each feedback about
  it then replaces one charged at par, so its first ones move it no further than they would move anybody.
- A model that pauses keeps its weight relative to the mean, as if it had done neither better nor worse than that.
- Where every candidate answers every feedback (Hedge) the counts are equal and par drops out.
- Where one is drawn (Exp3) the counts have equal expectation; par is then a baseline that takes variance away.

Source: Freund, Schapire, Singer and Warmuth, "Using and combining predictors that specialize", STOC 1997 (sleeping
experts are charged the mix); Greensmith, Bartlett and Baxter, JMLR 5, 2004 (baselines as control variates).
"""

import math
from collections.abc import Sequence

from clipper_stream.selection.state import ModelTotals, SelectionState

_FORGOTTEN = 1e-9  # feedbacks; a model of which a discount has left less is as good as new
_STEPS = 60  # Newton needs 3 to 6 here; the bound only guarantees an end
_PRECISE = 1e-9  # of the logarithm of a weight: far below what one feedback moves


def exponential_weights(eta: float, state: SelectionState, candidates: Sequence[str]) -> dict[str, float]:
    """Weight of each candidate, summing to 1; it falls with excess loss at the learning rate `eta`, > 0.

    >>> from clipper_stream.selection.state import ModelTotals, SelectionState
    >>> state = SelectionState({"a:1": ModelTotals(9.0, 0.0, 9.0, 0.0), "b:1": ModelTotals(9.0, 9.0, 9.0, 9.0)})
    >>> weights = exponential_weights(0.1, state, ["a:1", "b:1", "new:1"])
    >>> round(weights["new:1"], 4) == round((weights["a:1"] + weights["b:1"]) / 2, 4)
    True
    """
    totals = [state.of(model) for model in candidates]
    level = par(eta, [known for known in totals if known.weighted_count > _FORGOTTEN])
    exponents = [-eta * (known.weighted_loss - level * known.weighted_count) for known in totals]
    _, parts = _scaled_exp(exponents)
    total = sum(parts)
    return {model: part / total for model, part in zip(candidates, parts, strict=True)}


def par(eta: float, known: Sequence[ModelTotals]) -> float:
    """The loss per feedback whose weight is the mean weight of these models, 0 when there are none.

    It is the root of the convex, increasing f(b) = log mean_j exp(-eta (weighted_loss_j - b weighted_count_j)).
    Newton's method started above the root, at the worst model's loss, comes down to it without overshooting. Each of
    the models has a positive `weighted_count`.
    """
    if not known:
        return 0.0
    level = max(totals.weighted_loss / totals.weighted_count for totals in known)
    for _ in range(_STEPS):
        top, parts = _scaled_exp([-eta * (totals.weighted_loss - level * totals.weighted_count) for totals in known])
        total = sum(parts)
        value = top + math.log(total / len(known))
        slope = eta * sum(part * totals.weighted_count for part, totals in zip(parts, known, strict=True)) / total
        step = value / slope
        if value <= _PRECISE or level - step == level:
            break
        level -= step
    return level


def _scaled_exp(exponents: list[float]) -> tuple[float, list[float]]:
    top = max(exponents)
    return top, [math.exp(exponent - top) for exponent in exponents]
