"""Intervals of a value, by the bootstrap over blocks.

Rules of this file:
- Losses lie in [0, 1], so a value or an end outside is moved there. Where nothing is known the interval is all of it.
- Each end is missed with half of 1 - confidence; of several candidates, any end of all together (`joint_confidence`).
  These are for one look: a rule that looks again and again needs `clipper_stream.sequential_testing`.
- What is drawn depends on the seed alone. So two candidates are compared on the same drawn blocks, and the difference
  is not blurred by what they have in common.
- Percentiles are corrected for bias and acceleration (BCa), because terms are skewed: docs/explanation/decisions.md has
  the coverage of the other kinds. Below a hundred decisions that carry an estimate, none of them covers.
- Where all known losses are equal there is nothing to draw from, and the interval has no width.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.estimators.block_sums import BLOCKS, BlockSums, value_of
from clipper_stream.evaluation.log.columns import Floats
from clipper_stream.evaluation.results import Estimate

CONFIDENCE = 0.95
RESAMPLES = 2_000
"""The 2.5th percentile is then one of the fiftieth smallest: its own error is a tenth of the interval's."""
_FEWEST = 100
_DIGITS = 12
"""What is behind them is rounding: a candidate that did what was logged is neither better nor worse."""
_NORMAL = NormalDist()


def draws(seed: int, resamples: int = RESAMPLES) -> Floats:
    """Return how often each block is drawn in each resample, (resamples, BLOCKS): 8 MB, shared by all estimators.

    Source: Efron, "Bootstrap methods: another look at the jackknife", Ann. Statist. 7, 1979.
    """
    if resamples < _FEWEST:
        raise InvalidSetting(f"resamples is {resamples}: give at least {_FEWEST}, better {RESAMPLES}")
    drawn = np.random.default_rng(seed).multinomial(BLOCKS, np.full(BLOCKS, 1.0 / BLOCKS), resamples)
    return drawn.astype(np.float64)


def bootstrap(sums: BlockSums, drawn: Floats, confidence: float = CONFIDENCE) -> Estimate:
    """Return the value with its bootstrap interval.

    Source: Efron, "Better bootstrap confidence intervals", J. Am. Stat. Assoc. 82, 1987 (BCa).
    """
    return _corrected(sums.value, value_of(drawn @ sums.blocks), sums.influences, confidence, least=0.0)


def bootstrap_difference(sums: BlockSums, others: BlockSums, drawn: Floats, confidence: float = CONFIDENCE) -> Estimate:
    """Return the first value minus the second, of the same decisions; arguments as of `bootstrap`."""
    resampled = value_of(drawn @ sums.blocks) - value_of(drawn @ others.blocks)
    pulls = sums.influences - others.influences
    return _corrected(sums.value - others.value, resampled, pulls, confidence, least=-1.0)


def joint_confidence(
    candidates: Sequence[tuple[BlockSums, BlockSums]], drawn: Floats, confidence: float = CONFIDENCE
) -> float:
    """Return the confidence of each interval with which those of all candidates, and what they are compared with, hold.

    Whoever reads the best of twenty reads the luckiest. So what is drawn is looked at for the candidate that it moves
    furthest, in its own standard deviations: its loss, and its difference.

    Source: Romano and Wolf, "Stepwise multiple testing as formalized data snooping", Econometrica 73, 2005, section 4
    (studentized, in a single step).
    """
    if len(candidates) <= 1:
        return confidence
    most = np.zeros(len(drawn))
    for sums, others in candidates:
        values = value_of(drawn @ sums.blocks)
        for resampled in (values, values - value_of(drawn @ others.blocks)):
            spread = float(np.nanstd(resampled)) if np.isfinite(resampled).any() else 0.0
            if spread > 0.0:
                most = np.fmax(most, np.abs(resampled - np.nanmean(resampled)) / spread)
    return max(confidence, 2.0 * _NORMAL.cdf(float(np.quantile(most, confidence))) - 1.0)


def check_confidence(confidence: float) -> None:
    """Check that a confidence lies in (0, 1)."""
    if not 0.0 < confidence < 1.0:
        raise InvalidSetting(f"confidence is {confidence!r}: give a probability in (0, 1), such as 0.95")


def _corrected(value: float, resampled: Floats, pulls: Floats, confidence: float, least: float) -> Estimate:
    check_confidence(confidence)
    known = resampled[~np.isnan(resampled)]
    if np.isnan(value) or len(known) < _FEWEST:
        return _bounded(value, np.nan, np.nan, least)
    tail = (1.0 - confidence) / 2.0
    lower, upper = np.quantile(known, [_place(end, value, known, pulls) for end in (tail, 1.0 - tail)])
    return _bounded(value, lower, upper, least)


def _place(end: float, value: float, resampled: Floats, pulls: Floats) -> float:
    """Which quantile of the resampled values is the end of the interval: bias z and acceleration a of BCa."""
    below = float((resampled < value).mean() + 0.5 * (resampled == value).mean())
    rarest = 1.0 / len(resampled)
    z = _NORMAL.inv_cdf(min(max(below, rarest), 1.0 - rarest))
    squares = float(pulls @ pulls)
    a = float((pulls**3).sum()) / (6.0 * squares**1.5) if squares > 0.0 else 0.0
    moved = z + _NORMAL.inv_cdf(end)
    return _NORMAL.cdf(z + moved / (1.0 - a * moved)) if a * moved < 1.0 else float(moved > 0.0)


def _bounded(value: float, lower: float, upper: float, least: float) -> Estimate:
    """Value and interval inside [least, 1]; the interval is all of that where an end is no number."""
    known = not (math.isnan(lower) or math.isnan(upper))
    low, high = np.clip(np.round((lower, upper), _DIGITS), least, 1.0) if known else (least, 1.0)
    value = float(np.clip(np.round(value, _DIGITS), least, 1.0))
    return Estimate(value=value, low=float(low), high=float(high), interval="bootstrap")
