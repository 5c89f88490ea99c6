"""A trial with an end: ten looks at set parts of a plan, at which the probability of an error is spent.

A test that may look at any time pays for looks that nobody takes. Where the end is said beforehand, little is spent at
the first looks, and nearly all is left for the last.

Rules of this file:
- How much of a plan is over is counted in feedbacks or days, never in losses. So at a look it is known how much may be
  spent, and the variance says how far the sum of scores may have come by chance since the look before.
- The variance is the sum of squared scores, each at its end farther from 0. Its expectation is no less than that of the
  squared sum, whatever the mean does meanwhile: shares, difficulty and the difference itself may drift.
- Scores that are nearly all 0 show no variance until the rare other ones come. So `RARE` of the largest size are added,
  and a sum of skewed scores has to lie farther on the side where they are seldom.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from clipper_stream.sequential_testing.score_sums import Capital

LOOKS = 10
RARE = 4.0
"""Without a loss in n pairs, exp(-n margin) has to be 0.025 before n margin is the square root of this, times 1.96."""
LEAST_NEWS = 1.05
"""Ratio of the variances of two looks: below it the density in between is too narrow for the nodes."""
LOOKS_COST = 1.05
"""Times as many feedbacks as a test with one look needs, of the same power."""
DAY_S = 86_400
_NORMAL = NormalDist()
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(128)
_upper_tail = np.vectorize(lambda x: math.erfc(x / math.sqrt(2)) / 2, otypes=[float])


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """When a trial ends, at the latest: after so many feedbacks or days, whichever comes first.

    Attributes:
        feedbacks: About queries that compare the trial, at least `LOOKS`; None: any number, if there are `days`.
        days: Since its first answer, above 0; None: any number.
        power: Probability, in (0.5, 1), with which a difference of the margin is to be found.

    >>> TrialPlan(feedbacks=1000).fraction(250, 3600.0)
    0.25

    Source: Lan and DeMets, "Discrete sequential boundaries for clinical trials", Biometrika 70, 1983.
    """

    feedbacks: int | None = None
    days: float | None = None
    power: float = 0.8

    def fraction(self, feedbacks: int, seconds: float) -> float:
        """How much of it is over after so many feedbacks and seconds, in [0, 1]."""
        by_count = feedbacks / self.feedbacks if self.feedbacks else 0.0
        return min(1.0, max(by_count, seconds / (self.days * DAY_S) if self.days else 0.0))


class Look(NamedTuple):
    """What was known at one look.

    Attributes:
        fraction: How much of the plan was over, in (0, 1].
        scores: All scores until then.
        largest: How far from 0 a score may lie.
    """

    fraction: float
    scores: Capital
    largest: float


def is_below(looks: Sequence[Look], alpha: float, mean: float) -> bool:
    """Whether the scores showed at a look that their mean is below this one; wrongly in at most alpha of trials."""
    return any(upper <= mean for _, upper in _intervals(looks, alpha))


def is_above(looks: Sequence[Look], alpha: float, mean: float) -> bool:
    """The same of a mean above this one."""
    return any(lower >= mean for lower, _ in _intervals(looks, alpha))


def interval(looks: Sequence[Look], alpha: float) -> tuple[float, float]:
    """Ends of the mean by the last look, each of which is wrong at one of the looks in at most alpha of trials."""
    lower, upper = [(-1.0, 1.0), *_intervals(looks, alpha)][-1]
    return max(-1.0, lower), min(1.0, upper)


def _intervals(looks: Sequence[Look], alpha: float) -> list[tuple[float, float]]:
    """Ends of the mean by each look."""
    totals = [one.scores.totals for one in looks]
    variances = [*accumulate((of[3] + RARE * one.largest**2 for of, one in zip(totals, looks, strict=True)), max)]
    bounds = boundaries(alpha, tuple(one.fraction for one in looks), tuple(variances))
    found = []
    for (weight, low, high, _, cubes), variance, bound in zip(totals, variances, bounds, strict=True):
        shift = skewed(bound, variance, cubes)
        if weight > 0.0:
            found.append(((low - bound - max(0.0, -shift)) / weight, (high + bound + max(0.0, shift)) / weight))
    return found


def skewed(bound: float, variance: float, cubes: float) -> float:
    """How much farther below its mean a sum has to lie than `bound`, where the cubes of its terms sum to this.

    Terms that are seldom large are missed by the sum and by the squares at once, which makes a sum look sure.

    >>> round(skewed(bound=20.0, variance=100.0, cubes=30.0), 2)
    0.45

    Source: Hall, "Edgeworth expansion for Student's t statistic under minimal moment conditions", Annals of Probability
    15, 1987.
    """
    return (2.0 * bound**2 / variance + 1.0) / 6.0 * cubes / variance


def spent(alpha: float, fraction: float) -> float:
    """How much of alpha may have been spent when this fraction of the plan is over: the shape of O'Brien and Fleming.

    >>> [round(spent(0.025, fraction), 5) for fraction in (0.25, 0.5, 1.0)]
    [1e-05, 0.00153, 0.025]
    """
    return 2.0 * _NORMAL.cdf(_NORMAL.inv_cdf(alpha / 2) / math.sqrt(fraction))


@lru_cache(maxsize=1024)
def boundaries(alpha: float, fractions: tuple[float, ...], variances: tuple[float, ...]) -> tuple[float, ...]:
    """The sums from which on each look says so: random sums of mean 0 reach one of them with the probability alpha.

    Args:
        alpha: At most so probable, in (0, 1).
        fractions: Of the plan that were over, rising, in (0, 1].
        variances: Of the sum at these looks, rising, above 0.

    >>> [round(one, 3) for one in boundaries(0.025, (0.5, 1.0), (0.5, 1.0))]
    [2.095, 1.969]

    Source: Armitage, McPherson and Rowe, "Repeated significance tests on accumulating data", J. R. Stat. Soc. A 132,
    1969 (the recursion of the density); Lan and DeMets, as `TrialPlan` (what may be spent at each look).
    """
    found: list[float] = []
    used, before = 0.0, 0.0
    points, density = np.zeros(1), np.ones(1)  # of the sum at the look before, where none was reached
    for fraction, variance in zip(fractions, variances, strict=True):
        allowed, deviation = spent(alpha, fraction) - used, math.sqrt(variance)
        used += allowed
        if variance < LEAST_NEWS * before:  # more than is needed: as if it were the only look
            found.append(-deviation * _NORMAL.inv_cdf(max(allowed, 1e-99)))
            continue
        step, least, most = math.sqrt(variance - before), -8.0 * deviation, 10.0 * deviation
        low, high = least, most
        for _ in range(50):
            middle = (low + high) / 2
            reached = float(density @ _upper_tail((middle - points) / step))
            low, high = (middle, high) if reached > allowed else (low, middle)
        found.append(high)
        width = min(high, -least) - least
        nodes = least + width * (_NODES + 1.0) / 2
        kernel = np.exp(-(((nodes[:, None] - points) / step) ** 2) / 2) / (step * math.sqrt(2 * math.pi))
        points, density, before = nodes, (kernel @ density) * _NODE_WEIGHTS * width / 2, variance
    return tuple(found)


# --- beforehand -------------------------------------------------------------------------------------------------------
def outlook(
    plan: TrialPlan, alpha: float, margin: float, per_s: float, variance: float, share: float | None = None
) -> str:
    """How long a plan takes, whether its power is reached, and by which share it would be.

    Args:
        plan: The plan.
        alpha: Of each of its tests.
        margin: The difference that is to be found; 0: any.
        per_s: Feedbacks a second that compare the trial.
        variance: What one of them leaves open: the variance of the estimate, times its feedbacks.
        share: Of a canary that is compared by who answered; None: by pairs.

    >>> outlook(TrialPlan(feedbacks=20000), 0.025, 0.05, per_s=2.0, variance=0.21 / 0.09, share=0.1)
    'ends within 2.8 hours; power 0.8 for a difference of 0.05 needs 7,692 feedbacks, 64 minutes'

    Source: Neyman, "On the two different aspects of the representative method", J. R. Stat. Soc. 97, 1934 (losses that
    vary alike are compared best by shares of a half: no larger one is asked for).
    """
    if per_s <= 0.0:
        return "has no end that is known: no feedback comes now that compares the trial"
    has = min(plan.feedbacks or math.inf, math.inf if plan.days is None else plan.days * DAY_S * per_s)
    text = f"ends within {_duration(has / per_s)}"
    if margin <= 0.0:
        return text
    z = _NORMAL.inv_cdf(1.0 - alpha) + _NORMAL.inv_cdf(plan.power)
    needs = LOOKS_COST * variance * (z / margin) ** 2
    text += f"; power {plan.power:g} for a difference of {margin:g} needs {math.ceil(needs):,} feedbacks"
    text += f", {_duration(needs / per_s)}"
    if needs <= has:
        return text
    room = 1.0 - 4.0 * share * (1.0 - share) * needs / has if share else -1.0
    enough = f"enough with a share of {(1.0 - math.sqrt(room)) / 2:.1%}" if room >= 0.0 else "whatever the share"
    return f"{text}: more than the plan has{f', {enough}' if share else ''}"


def _duration(seconds: float) -> str:
    for unit, length in (("days", DAY_S), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.0f} seconds"
