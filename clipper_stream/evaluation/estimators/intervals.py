"""What an interval is, and the two that need a formula only: the normal one and empirical Bernstein.

Rules of this file:
- Losses lie in [0, 1], so an end outside is moved there. Where nothing is known the interval is all of it.
- Each end is missed with half of 1 - confidence. These are intervals for one look: a rule that looks again and again
  needs `clipper_stream.sequential_testing`.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.estimators.block_sums import BlockSums

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An interval for a candidate's loss.

    Attributes:
        lower: In [0, 1]; in [-1, 1] for a difference.
        upper: Likewise.
        confidence: Share of logs, in (0, 1), in which such an interval covers the truth.
        method: `bca`, `bernstein` or `normal`.

    >>> Interval(lower=0.1, upper=0.3, confidence=0.95, method="bca").holds(0.2)
    True

    Source: Neyman, "Outline of a theory of statistical estimation", Phil. Trans. R. Soc. A 236, 1937.
    """

    lower: float
    upper: float
    confidence: float
    method: str

    def holds(self, value: float) -> bool:
        """Return whether the value lies inside."""
        return self.lower <= value <= self.upper


def normal(sums: BlockSums, confidence: float = CONFIDENCE) -> Interval:
    """Value and standard error as a normal distribution: the fastest, and too short where weights are skewed.

    Raises:
        InvalidSetting: a confidence outside of (0, 1).
    """
    check_confidence(confidence)
    radius = NormalDist().inv_cdf(0.5 + confidence / 2.0) * sums.standard_error
    return bounded(sums.value - radius, sums.value + radius, confidence, "normal")


def bernstein(sums: BlockSums, width: float | None, confidence: float = CONFIDENCE) -> Interval:
    """Empirical Bernstein: holds at any number of decisions, without any approximation, and is wide for it.

    The radius is sqrt(2 V log(4 / a) / n) + 7 width log(4 / a) / (3 (n - 1)), a being 1 - confidence and V the terms'
    variance; log(4 / a), not log(2 / a), because both ends are to hold.

    Args:
        sums: Of an estimator that is a mean of terms: `Estimator.width` is not None.
        width: `Estimator.width` of the largest importance: no two terms lie further apart. It is no guess from the
            terms: it follows from the smallest logged propensity of each model.
        confidence: In (0, 1).

    Raises:
        InvalidSetting: a confidence outside of (0, 1), a quotient of sums, or decisions that count differently.

    Source: Maurer and Pontil, "Empirical Bernstein bounds and sample variance penalization", COLT 2009, theorem 4.
    """
    check_confidence(confidence)
    base, share, numerator, denominator = sums.blocks.sum(axis=0)
    n = sums.decisions
    if width is None or share != n or denominator != share:
        raise InvalidSetting("empirical Bernstein is for means of equal decisions: use bootstrap for quotients of sums")
    if n < 2:  # noqa: PLR2004 (one term has no variance)
        return bounded(math.nan, math.nan, confidence, "bernstein")
    mean, logarithm = (base + numerator) / n, math.log(4.0 / (1.0 - confidence))
    variance = max(0.0, (sums.squares - n * mean * mean) / (n - 1))
    radius = math.sqrt(2.0 * variance * logarithm / n) + 7.0 * width * logarithm / (3.0 * (n - 1))
    return bounded(mean - radius, mean + radius, confidence, "bernstein")


def bounded(lower: float, upper: float, confidence: float, method: str, least: float = 0.0) -> Interval:
    """The interval inside [least, 1]; all of that where an end is no number."""
    known = not (math.isnan(lower) or math.isnan(upper))
    ends = np.clip((lower, upper), least, 1.0) if known else (least, 1.0)
    return Interval(lower=float(ends[0]), upper=float(ends[1]), confidence=confidence, method=method)


def check_confidence(confidence: float) -> None:
    """Check that a confidence lies in (0, 1).

    Raises:
        InvalidSetting: a confidence outside of (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise InvalidSetting(f"confidence is {confidence!r}: give a probability in (0, 1), such as 0.95")
