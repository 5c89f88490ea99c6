"""Feedback that has not come yet, or never comes: which decisions are left out, and what is said about it.

Rules of this file:
- A decision without feedback says "not within its age". Leaving those out would make delays too short, so the
  distribution of delays is that of Kaplan and Meier.
- Delays are counted in buckets whose edges are 4 % apart, so that counts of chunks are added.
- Young decisions are left out by their age, which their loss has nothing to do with.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.estimators.block_sums import AdditiveSums
from clipper_stream.evaluation.log.columns import Bools, DecisionColumns, Floats, Ints

_EDGES_OF_A_DOUBLING = 16
BUCKETS = 36 * _EDGES_OF_A_DOUBLING
"""Up to 2^36 ms, two years: no log is kept as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays(AdditiveSums):
    """Decisions by how long their feedback took, or has been waited for.

    Attributes:
        came: Decisions with feedback, by its delay, (BUCKETS,).
        waiting: Decisions without, by their age, (BUCKETS,).

    Source: Kaplan and Meier, "Nonparametric estimation from incomplete observations", J. Am. Stat. Assoc. 53, 1958.
    """

    came: Floats
    waiting: Floats

    @classmethod
    def of(cls, columns: DecisionColumns, now_ms: int) -> Self:
        rows = columns.with_feedback
        bucket = buckets_of(np.where(rows, columns.feedback_at_ms, now_ms) - columns.at_ms)
        came, waiting = (np.bincount(bucket[kind], minlength=BUCKETS).astype(float) for kind in (rows, ~rows))
        return cls(came=came, waiting=waiting)

    @property
    def arrived(self) -> Floats:
        """Probability that feedback has come within each bucket's upper edge, (BUCKETS,)."""
        at_risk = np.cumsum((self.came + self.waiting)[::-1])[::-1]
        hazard = np.divide(self.came, at_risk, out=np.zeros_like(self.came), where=at_risk > 0.0)
        return np.asarray(1.0 - np.cumprod(1.0 - hazard), np.float64)

    def maturity_ms(self, ratio: float = 0.99) -> int:
        """Age by which this share of the feedback that ever comes has come; milliseconds."""
        if not 0.0 < ratio <= 1.0:
            raise InvalidSetting(f"ratio is {ratio!r}: give a share of the feedback in (0, 1], such as 0.99")
        arrived = self.arrived
        reached = arrived >= ratio * arrived[-1] * (1.0 - 1e-12)
        return edge_ms(int(reached.argmax())) if arrived[-1] > 0.0 else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Censored(AdditiveSums):
    """Decisions by what is known of their feedback.

    Attributes:
        young: Decisions whose feedback may still come, left out.
        came: Older ones with feedback.
        missing: Older ones without.

    Source: Little and Rubin, "Statistical analysis with missing data", 3rd edition 2019, section 1.3.
    """

    young: int
    came: int
    missing: int

    @classmethod
    def of(cls, columns: DecisionColumns, now_ms: int, maturity_ms: int) -> Self:
        old, rows = mature(columns, now_ms, maturity_ms), columns.with_feedback
        return cls(young=int((~old).sum()), came=int((old & rows).sum()), missing=int((old & ~rows).sum()))

    @property
    def sentence(self) -> str:
        """One sentence about what was left out."""
        old = self.came + self.missing
        return (
            f"{self.young:,} of {self.young + old:,} decisions were left out because their feedback may still come; "
            f"of the other {old:,}, {self.missing:,} have none and were left out too"
        )


def mature(columns: DecisionColumns, now_ms: int, maturity_ms: int) -> Bools:
    """Decisions of a log read up to `now_ms` that are old enough for their feedback to have come, (n,)."""
    return np.asarray(columns.at_ms <= now_ms - maturity_ms)


def buckets_of(since_ms: Ints) -> NDArray[np.int64]:
    """Bucket of each delay; one that clocks made negative is none at all, (n,)."""
    doublings = np.log2(np.maximum(since_ms, 1))
    return np.asarray(np.minimum(np.ceil(doublings * _EDGES_OF_A_DOUBLING), BUCKETS - 1), np.int64)


def edge_ms(bucket: int) -> int:
    """Longest delay in a bucket, milliseconds."""
    return int(2.0 ** (bucket / _EDGES_OF_A_DOUBLING))
