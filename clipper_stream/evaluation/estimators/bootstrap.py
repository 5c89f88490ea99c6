"""Bootstrap over blocks: the same blocks drawn again and again, for every estimator and candidate alike.

Rules of this file:
- What is drawn depends on the seed alone. So two candidates are compared on the same drawn blocks, and the difference
  is not blurred by what they have in common.
- Percentiles are corrected for bias and acceleration (BCa), because terms are skewed: docs/explanation/decisions.md has
  the coverage of the other kinds. Below a hundred decisions that carry an estimate, none of them covers.
- Where all known losses are equal there is nothing to draw from, and the interval has no width: read `bernstein`.
"""

from statistics import NormalDist

import numpy as np

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.estimators.block_sums import BlockSums, value_of
from clipper_stream.evaluation.estimators.blocks import BLOCKS
from clipper_stream.evaluation.estimators.intervals import CONFIDENCE, Interval, bounded, check_confidence
from clipper_stream.evaluation.log.columns import Floats

RESAMPLES = 2_000
"""The 2.5th percentile is then one of the fiftieth smallest: its own error is a tenth of the interval's."""
_FEWEST = 100
_NORMAL = NormalDist()


def draws(seed: int, resamples: int = RESAMPLES) -> Floats:
    """Return how often each block is drawn in each resample, (resamples, BLOCKS): 8 MB, shared by all estimators.

    Raises:
        InvalidSetting: too few resamples for percentiles.

    Source: Efron, "Bootstrap methods: another look at the jackknife", Ann. Statist. 7, 1979.
    """
    if resamples < _FEWEST:
        raise InvalidSetting(f"resamples is {resamples}: give at least {_FEWEST}, better {RESAMPLES}")
    drawn = np.random.default_rng(seed).multinomial(BLOCKS, np.full(BLOCKS, 1.0 / BLOCKS), resamples)
    return drawn.astype(np.float64)


def bootstrap(sums: BlockSums, drawn: Floats, confidence: float = CONFIDENCE) -> Interval:
    """Return the bootstrap interval of a value.

    Args:
        sums: Of one estimator and candidate.
        drawn: What `draws` drew.
        confidence: In (0, 1).

    Raises:
        InvalidSetting: a confidence outside of (0, 1).

    Source: Efron, "Better bootstrap confidence intervals", J. Am. Stat. Assoc. 82, 1987 (BCa).
    """
    return _corrected(sums.value, value_of(drawn @ sums.blocks), sums.influences, confidence, least=0.0)


def bootstrap_difference(sums: BlockSums, others: BlockSums, drawn: Floats, confidence: float = CONFIDENCE) -> Interval:
    """The interval of the first value minus the second, of the same decisions; arguments as of `bootstrap`."""
    resampled = value_of(drawn @ sums.blocks) - value_of(drawn @ others.blocks)
    pulls = sums.influences - others.influences
    return _corrected(sums.value - others.value, resampled, pulls, confidence, least=-1.0)


def _corrected(value: float, resampled: Floats, pulls: Floats, confidence: float, least: float) -> Interval:
    check_confidence(confidence)
    known = resampled[~np.isnan(resampled)]
    if np.isnan(value) or len(known) < _FEWEST:
        return bounded(np.nan, np.nan, confidence, "bca", least)
    tail = (1.0 - confidence) / 2.0
    places = [_place(end, value, known, pulls) for end in (tail, 1.0 - tail)]
    lower, upper = np.quantile(known, places)
    return bounded(float(lower), float(upper), confidence, "bca", least)


def _place(end: float, value: float, resampled: Floats, pulls: Floats) -> float:
    """Which quantile of the resampled values is the end of the interval: bias z and acceleration a of BCa."""
    below = float((resampled < value).mean() + 0.5 * (resampled == value).mean())
    rarest = 1.0 / len(resampled)
    z = _NORMAL.inv_cdf(min(max(below, rarest), 1.0 - rarest))
    squares = float(pulls @ pulls)
    a = float((pulls**3).sum()) / (6.0 * squares**1.5) if squares > 0.0 else 0.0
    moved = z + _NORMAL.inv_cdf(end)
    return _NORMAL.cdf(z + moved / (1.0 - a * moved)) if a * moved < 1.0 else float(moved > 0.0)
