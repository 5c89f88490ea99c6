"""Tsallis-INF: one model, without anything to tune, whether losses are random or chosen by an adversary.

Weights are fair to models with less history than others. Follow-the-regularised-leader with the regulariser
sqrt(t) (-2 sum sqrt(x) + g sum x log x) gives model i the weight x_i with

    h(x_i) = level + score_i / sqrt(t_i),    h(x) = 1 / sqrt(x) - g log x,    sum of all x_i = 1

where only differences of scores matter. As in `exponential_weights`, what a model missed is charged at par: score_i is
weighted_loss_i - weighted_count_i par, and a model without history has the score 0. Par is where it has the weight 1 /
M of M candidates, which is the mean of the others. So the level is h(1 / M), and one equation is left, for par:

    sum over the K models with a history of x_i = K / M

Its left side is convex and increasing in par. Newton's method started where the first of these models alone would have
K / M, which is right of the root, comes down to it without overshooting. Where all have the same history par drops
out, and these are the weights of the papers.

t_i is the number of feedbacks, but never more than the model's own weighted count: a model that joins after millions is
judged by what is known of it, as in a game that began when it came. With one t for all it would take a root of the
millions to tell anything about it, good or bad.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from clipper_stream.selection.distribution import ActionDistribution, one_of
from clipper_stream.selection.parameters import bounded_field
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import ModelTotals, SelectionState

_FORGOTTEN = 1e-9  # feedbacks; a model of which a discount has left less is as good as new
_STEPS = 100  # Newton needs 3 to 8 here; the bound only guarantees an end
_PRECISE = 1e-12  # of a sum of weights


@dataclass(frozen=True, slots=True, kw_only=True)
class TsallisInf(SelectionPolicy):
    """Weights that fall with the square of excess loss, at a rate that the counts give.

    Weight i is 4 / (eta_i (L_i - x))^2 with eta_i = rate / sqrt(t_i), x such that they sum to 1. Regret grows as log t
    where models differ steadily, and with sqrt(t) at worst; no model is ever certain to stay unasked, so one that is
    repaired is found, if late: use a half-life for that. What models missed is charged at par, which takes variance
    away as the paper's second estimator does: see the module.

    The number of feedbacks is in the sums as two figures: scored outputs, which an audit makes several of, and the
    largest weighted count, which one improbable choice makes large. The lesser one is taken.

    Attributes:
        rate: How fast weights fall with excess loss, > 0. 2 is the paper's for importance weights, 4 that for its
            second estimator. With 4 regret was a third less where losses are random, and more against an adversary.
        delay: Decisions that are typically without feedback yet, >= 0. It adds entropy to the regulariser, as much as
            keeps the regret near that of no delay: it is slower, and is not led astray by what many decisions under
            one state have in common. 0: none.
        half_life, half_life_s: As in `SelectionPolicy`.

    >>> from clipper_stream.selection.state import ModelTotals
    >>> state = SelectionState({"a:1": ModelTotals(50.0, 5.0, 50.0, 5.0), "b:1": ModelTotals(50.0, 40.0, 50.0, 40.0)})
    >>> {model: round(weight, 3) for model, weight in TsallisInf().weights(state, ["a:1", "b:1"]).items()}
    {'a:1': 0.972, 'b:1': 0.028}
    >>> {model: round(weight, 3) for model, weight in TsallisInf(delay=100).weights(state, ["a:1", "b:1"]).items()}
    {'a:1': 0.54, 'b:1': 0.46}

    Source: Zimmert and Seldin, "Tsallis-INF: an optimal algorithm for stochastic and adversarial bandits", JMLR 22,
    2021, theorem 1 (importance weights); for delay, Zimmert and Seldin, "An optimal algorithm for adversarial bandits
    with arbitrary delays", AISTATS 2020, section 3, with as many outstanding in each round.
    """

    name: ClassVar[str] = "tsallis_inf"
    rate: float = bounded_field(2.0, above=0.0)
    delay: float = bounded_field(0.0)
    half_life: float | None = bounded_field(None, above=0.0)
    half_life_s: float | None = bounded_field(None, above=0.0)

    def prepare(self, state: SelectionState, candidates: Sequence[str]) -> ActionDistribution:
        entropy = math.sqrt(2.0 * self.delay / math.log(len(candidates))) if len(candidates) > 1 else 0.0
        weights = tsallis_weights(state, candidates, self.rate, self.delay, entropy)
        return one_of(weights, weights.values())


def feedbacks(state: SelectionState, candidates: Sequence[str]) -> float:
    """Number of feedbacks in the candidates' sums; exact where each query asks one model, or all."""
    totals = [state.of(model) for model in candidates]
    return min(sum(one.count for one in totals), max(one.weighted_count for one in totals))


def tsallis_weights(
    state: SelectionState, candidates: Sequence[str], rate: float, delay: float = 0.0, entropy: float = 0.0
) -> dict[str, float]:
    """Weight of each candidate, summing to 1.

    `rate` and `delay` are those of `TsallisInf`; `entropy` is g, >= 0, the share of the Shannon entropy in the
    regulariser.

    >>> state = SelectionState({"a:1": ModelTotals(9.0, 0.0, 9.0, 0.0), "b:1": ModelTotals(9.0, 9.0, 9.0, 9.0)})
    >>> weights = tsallis_weights(state, ["a:1", "b:1", "new:1"], rate=2.0)
    >>> round(weights["new:1"], 9) == round((weights["a:1"] + weights["b:1"]) / 2, 9)
    True
    """
    mean = 1.0 / len(candidates)
    most = feedbacks(state, candidates)
    models = [_Evidence.of(state.of(model), most, rate, delay) for model in candidates]
    known = [one for one in models if one.feedbacks > 0.0]
    level = _h(mean, entropy)
    par = _par(known, mean, entropy)
    parts = [_inverse(level + one.loss - par * one.feedbacks, entropy) for one in models]
    total = sum(parts)
    return {model: part / total for model, part in zip(candidates, parts, strict=True)}


class _Evidence(NamedTuple):
    """What is known of a model, divided by the root of its rounds."""

    loss: float
    feedbacks: float

    @classmethod
    def of(cls, totals: ModelTotals, most: float, rate: float, delay: float) -> "_Evidence":
        if totals.weighted_count <= _FORGOTTEN:
            return cls(0.0, 0.0)
        root = math.sqrt(max(1.0, min(most, totals.weighted_count) + delay)) * 2.0 / rate
        return cls(totals.weighted_loss / root, totals.weighted_count / root)


def _par(known: Sequence[_Evidence], mean: float, entropy: float) -> float:
    """The loss a feedback at which models have the mean weight; 0 when none has a history."""
    if not known:
        return 0.0
    level, goal = _h(mean, entropy), mean * len(known)
    ahead = level - _h(goal, entropy)
    par = min((one.loss + ahead) / one.feedbacks for one in known)
    for _ in range(_STEPS):
        value, slope = -goal, 0.0
        for one in known:
            part = _inverse(level + one.loss - par * one.feedbacks, entropy)
            value += part
            slope += one.feedbacks * part / (0.5 / math.sqrt(part) + entropy)
        step = value / slope
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
