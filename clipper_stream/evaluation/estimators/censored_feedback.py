"""Feedback that has not come yet, or never comes: who is left out, who counts more, and what is said about it.

Rules of this file:
- A decision without feedback says "not within its age". Leaving those out would make delays too short and models whose
  feedback is slow too rare, so the distribution of delays is that of Kaplan and Meier.
- Delays are counted in buckets whose edges are 4 % apart, so that counts of chunks are added.
- Young decisions are left out by their age, which their loss has nothing to do with.
- Weights correct for feedback that comes more often for one model than for another. They cannot correct for feedback
  that comes more often for a good answer than for a bad one: nothing in the log shows that.
- A group is the model that was served: one a column, then several models, then none, (G,).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.estimators.block_sums import AdditiveSums, totals
from clipper_stream.evaluation.log.columns import Bools, Codes, DecisionColumns, Floats, Ints

_EDGES_OF_A_DOUBLING = 16
BUCKETS = 36 * _EDGES_OF_A_DOUBLING
"""Up to 2^36 ms, two years: no log is kept as long."""
OTHER_GROUPS = ("several models", "no model")
LEAST_ARRIVED = 0.05
"""A decision so young that less has come of its like is left out: it would count more than twenty times."""
LEAST_EXPECTED = 5.0
CHANCE = 0.001
"""Of a thousand logs in which it makes no difference who was served, one gives the warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays(AdditiveSums):
    """Decisions by whom they served, and by how long their feedback took, or has been waited for.

    Attributes:
        came: Decisions with feedback, by its delay, (G, BUCKETS).
        waiting: Decisions without, by their age, (G, BUCKETS).

    Source: Kaplan and Meier, "Nonparametric estimation from incomplete observations", J. Am. Stat. Assoc. 53, 1958.
    """

    came: Floats
    waiting: Floats

    @classmethod
    def of(cls, columns: DecisionColumns, now_ms: int) -> Self:
        rows = columns.with_feedback
        since_ms = np.where(rows, columns.feedback_at_ms, now_ms) - columns.at_ms
        cell = groups_of(columns) * np.int64(BUCKETS) + buckets_of(since_ms)
        size = (len(columns.models) + len(OTHER_GROUPS)) * BUCKETS
        came, waiting = totals(cell, size, np.column_stack([rows, ~rows])).T.reshape(2, -1, BUCKETS)
        return cls(came=came, waiting=waiting)

    @property
    def arrived(self) -> Floats:
        """Probability that feedback has come within each bucket's upper edge, (G, BUCKETS)."""
        return _arrived(self.came, self.waiting)

    def maturity_ms(self, ratio: float = 0.99) -> int:
        """Age by which this share of the feedback that ever comes has come, whomever it is about; milliseconds."""
        if not 0.0 < ratio <= 1.0:
            raise InvalidSetting(f"ratio is {ratio!r}: give a share of the feedback in (0, 1], such as 0.99")
        everybody = _arrived(self.came.sum(axis=0, keepdims=True), self.waiting.sum(axis=0, keepdims=True))[0]
        reached = everybody >= ratio * everybody[-1] * (1.0 - 1e-12)
        return edge_ms(int(reached.argmax())) if everybody[-1] > 0.0 else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Censored(AdditiveSums):
    """Decisions with and without feedback, by whom they served.

    Attributes:
        young: Decisions whose feedback may still come, left out, (G,).
        came: Older ones with feedback, (G,).
        missing: Older ones without, (G,).

    Source: Little and Rubin, "Statistical analysis with missing data", 3rd edition 2019, section 1.3.
    """

    young: Floats
    came: Floats
    missing: Floats

    @classmethod
    def of(cls, columns: DecisionColumns, now_ms: int, maturity_ms: int) -> Self:
        old, rows = mature(columns, now_ms, maturity_ms), columns.with_feedback
        kinds = np.column_stack([~old, old & rows, old & ~rows])
        young, came, missing = totals(groups_of(columns), len(columns.models) + len(OTHER_GROUPS), kinds).T
        return cls(young=young, came=came, missing=missing)

    @property
    def missing_ratio(self) -> float:
        """Share of the older decisions without feedback; NaN without any."""
        old = float((self.came + self.missing).sum())
        return float(self.missing.sum()) / old if old else math.nan

    @property
    def p_value(self) -> float:
        """Probability of shares that differ so much if feedback did not depend on the served model.

        Source: Pearson's chi-square test of homogeneity, over groups of which at least five decisions with and five
        without feedback are expected (Cochran, "Some methods for strengthening the common chi-square tests", 1954).
        """
        old, ratio = self.came + self.missing, self.missing_ratio
        if math.isnan(ratio):
            return 1.0
        tested = old * min(ratio, 1.0 - ratio) >= LEAST_EXPECTED
        old, missing = old[tested], self.missing[tested]
        if len(old) < 2:  # noqa: PLR2004 (nothing to compare)
            return 1.0
        ratio = float(missing.sum() / old.sum())
        distances = (missing - old * ratio) ** 2 / (old * ratio * (1.0 - ratio))
        return chi_square_above(float(distances.sum()), len(old) - 1)

    @property
    def unknown_ratio(self) -> float:
        """How far losses that nobody heard of can move a difference; 0 unless `warnings` says that they depend on it.

        By the losses of the group that misses most, and by those of what was logged.
        """
        if self.p_value >= CHANCE:
            return 0.0
        old = self.came + self.missing
        return float((self.missing[old > 0.0] / old[old > 0.0]).max()) + self.missing_ratio

    @property
    def sentence(self) -> str:
        """One sentence about what was left out."""
        young, old = float(self.young.sum()), float((self.came + self.missing).sum())
        return (
            f"{young:,.0f} of {young + old:,.0f} decisions were left out because their feedback may still come; "
            f"of the other {old:,.0f}, {self.missing.sum():,.0f} have none and were left out too"
        )

    def warnings(self, models: Sequence[str]) -> tuple[str, ...]:
        """A warning when feedback depends on the served model, else nothing."""
        if self.p_value >= CHANCE:
            return ()
        groups, old = (*models, *OTHER_GROUPS), self.came + self.missing
        shares = {g: m / n for g, m, n in zip(groups, self.missing, old, strict=True) if n}
        least, most = min(shares, key=lambda g: shares[g]), max(shares, key=lambda g: shares[g])
        sentence = (
            f"{shares[most]:.1%} of the decisions that {most} served have no feedback, of those of {least} "
            f"{shares[least]:.1%}, more than chance explains (chi-square, p = {self.p_value:.1g}). Weigh against it "
            "(weights_of), and find out whether feedback depends on the answer"
        )
        return (sentence,)


def mature(columns: DecisionColumns, now_ms: int, maturity_ms: int) -> Bools:
    """Decisions of a log read up to `now_ms` that are old enough for their feedback to have come, (n,)."""
    return np.asarray(columns.at_ms <= now_ms - maturity_ms)


def weights_of(columns: DecisionColumns, delays: Delays, now_ms: int) -> Floats:
    """Return the weight of each decision, (n,): 1 / probability that its feedback had arrived at its age.

    So the decisions with feedback stand for those without. Young decisions may stay in; those without feedback, or too
    young (`LEAST_ARRIVED`), have 0.

    Source: Robins and Rotnitzky, "Recovery of information and adjustment for dependent censoring using surrogate
    markers", 1992 (inverse probability of censoring weights).
    """
    arrived = delays.arrived[groups_of(columns), buckets_of(now_ms - columns.at_ms)]
    counted = columns.with_feedback & (arrived >= LEAST_ARRIVED)
    return np.divide(1.0, arrived, out=np.zeros(len(columns)), where=counted)


def groups_of(columns: DecisionColumns) -> Codes:
    """Group of each decision, (n,)."""
    models, served = len(columns.models), columns.served.sum(axis=1)
    lone = columns.served.argmax(axis=1) if models else np.zeros(len(columns), np.int64)
    return np.where(served == 1, lone, np.where(served > 1, models, models + 1)).astype(np.int32)


def buckets_of(since_ms: Ints) -> NDArray[np.int64]:
    """Bucket of each delay; one that clocks made negative is none at all, (n,)."""
    doublings = np.log2(np.maximum(since_ms, 1))
    return np.asarray(np.minimum(np.ceil(doublings * _EDGES_OF_A_DOUBLING), BUCKETS - 1), np.int64)


def edge_ms(bucket: int) -> int:
    """Longest delay in a bucket, milliseconds."""
    return int(2.0 ** (bucket / _EDGES_OF_A_DOUBLING))


def chi_square_above(value: float, degrees: int) -> float:
    """Probability that a chi-square variable is above a value.

    >>> round(chi_square_above(3.841, 1), 3), round(chi_square_above(5.991, 2), 3)
    (0.05, 0.05)

    Source: Abramowitz and Stegun, "Handbook of mathematical functions", 1964, 26.4.4 and 26.4.5.
    """
    half = value / 2.0
    if half <= 0.0:
        return 1.0
    lowest = 0.5 * (degrees % 2)
    powers = (lowest + step for step in range(degrees // 2))
    terms = (math.exp(power * math.log(half) - half - math.lgamma(power + 1.0)) for power in powers)
    return min(1.0, (math.erfc(math.sqrt(half)) if degrees % 2 else 0.0) + sum(terms))


def _arrived(came: Floats, waiting: Floats) -> Floats:
    at_risk = np.cumsum((came + waiting)[:, ::-1], axis=1)[:, ::-1]
    hazard = np.divide(came, at_risk, out=np.zeros_like(came), where=at_risk > 0.0)
    return np.asarray(1.0 - np.cumprod(1.0 - hazard, axis=1), np.float64)
