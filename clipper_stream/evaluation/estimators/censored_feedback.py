"""Feedback that has not come yet, or never comes: which decisions are left out, and what is said about it.

Rules of this file:
- A decision without feedback says "not within its age". Leaving those out would make delays too short, so the
  distribution of delays is that of Kaplan and Meier.
- Delays are counted in buckets whose edges are 4 % apart, so that counts of chunks are added.
- Young decisions are left out by their age, which their loss has nothing to do with.
- Nothing in the log shows whether feedback comes more often for a good answer than for a bad one. Where it comes more
  often for one model than for another at the same time, what is missing is taken to be of any loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from clipper_stream.evaluation.estimators.block_sums import AdditiveSums, summed, totals
from clipper_stream.evaluation.log.columns import Bools, DecisionColumns, Floats, Ints

_EDGES_OF_A_DOUBLING = 16
BUCKETS = 36 * _EDGES_OF_A_DOUBLING
"""Up to 2^36 ms, two years: no log is kept as long."""
CHANCE = 3.3
"""Standard errors: in a thousand logs where it makes no difference who was served, a model is farther away in one."""


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

    def maturity_ms(self) -> int:
        """Age by which 99 % of the feedback that ever comes has come; milliseconds."""
        arrived = self.arrived
        reached = arrived >= 0.99 * arrived[-1] * (1.0 - 1e-12)
        return edge_ms(int(reached.argmax())) if arrived[-1] > 0.0 else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Censored(AdditiveSums):
    """Decisions by what is known of their feedback.

    Attributes:
        young: Decisions whose feedback may still come, left out.
        old: The others, by span of time, (S, 1).
        silent: Those of them without feedback, (S, 1).
        served: Old ones that each model served, (S, K).
        unheard: Those of them without feedback, (S, K).

    Source: Little and Rubin, "Statistical analysis with missing data", 3rd edition 2019, section 1.3.
    """

    young: int
    old: Floats
    silent: Floats
    served: Floats
    unheard: Floats

    @classmethod
    def of(cls, columns: DecisionColumns, now_ms: int, maturity_ms: int, span: Ints, spans: int) -> Self:
        """Count decisions, each of a span of time, (n,), of so many."""
        old = mature(columns, now_ms, maturity_ms)
        silent = old & ~columns.with_feedback
        counts = [summed(None, span[rows], spans)[:, None] for rows in (old, silent)]
        served, unheard = (totals(span[rows], spans, columns.served[rows]) for rows in (old, silent))
        return cls(young=int((~old).sum()), old=counts[0], silent=counts[1], served=served, unheard=unheard)

    @property
    def unknown_ratio(self) -> float:
        """How far losses that nobody heard of can move a difference; 0 where chance explains whose are missing.

        By those of the model that misses most, and by those of what was logged.
        """
        old = np.maximum(self.old, 1.0)
        ratio = self.silent / old
        variance = (self.served * ratio * (1.0 - ratio) * (1.0 - self.served / old)).sum(axis=0)
        apart = np.abs((self.unheard - self.served * ratio).sum(axis=0))
        if (apart <= CHANCE * np.sqrt(variance) + 0.5).all():  # 0.5: counts are whole
            return 0.0
        return float(self._shares.max() + self.silent.sum() / self.old.sum())

    @property
    def _shares(self) -> Floats:
        """Share of the decisions that each model served without feedback, (K,)."""
        return np.asarray(self.unheard.sum(axis=0) / np.maximum(self.served.sum(axis=0), 1.0))

    def warning(self, models: Sequence[str]) -> str:
        """The warning that feedback depends on the served model; empty where chance explains whose is missing."""
        if not self.unknown_ratio:
            return ""
        most = int(self._shares.argmax())
        return (
            f"{self._shares[most]:.1%} of the decisions that {models[most]} served have no feedback, of all decisions "
            f"{self.silent.sum() / self.old.sum():.1%}, more than chance explains: verdicts allow for "
            "losses that nobody heard of. Find out whether feedback depends on the answer"
        )

    @property
    def sentence(self) -> str:
        """One sentence about what was left out."""
        old = int(self.old.sum())
        return (
            f"{self.young:,} of {self.young + old:,} decisions were left out because their feedback may still come; "
            f"of the other {old:,}, {int(self.silent.sum()):,} have none and were left out too"
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
