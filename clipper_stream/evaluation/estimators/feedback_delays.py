"""How long feedback takes, by the model that was served, with decisions whose feedback may still come.

Rules of this file:
- A decision without feedback says "not within its age". Leaving those out would make delays too short and models whose
  feedback is slow too rare, so the distribution is that of Kaplan and Meier.
- Delays are counted in buckets whose edges are 4 % apart, so that counts of chunks are added.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.estimators.contexts import totals
from clipper_stream.evaluation.log.columns import Codes, DecisionColumns, Floats, Ints

_EDGES_OF_A_DOUBLING = 16
BUCKETS = 36 * _EDGES_OF_A_DOUBLING
"""Up to 2^36 ms, two years: no log is kept as long."""
SEVERAL, NOBODY = "several models", "no model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """Decisions by whom they served, and by how long their feedback took, or has been waited for.

    Attributes:
        groups: Models that were served alone, then `SEVERAL` and `NOBODY`.
        came: Decisions with feedback, by its delay, (G, BUCKETS).
        waiting: Decisions without, by their age, (G, BUCKETS).

    >>> Delays.empty(["a:1"]).groups
    ('a:1', 'several models', 'no model')

    Source: Kaplan and Meier, "Nonparametric estimation from incomplete observations", J. Am. Stat. Assoc. 53, 1958.
    """

    groups: tuple[str, ...]
    came: Floats
    waiting: Floats

    @classmethod
    def empty(cls, models: tuple[str, ...] | list[str]) -> Self:
        """Return the delays of no decision, of these models."""
        groups = (*models, SEVERAL, NOBODY)
        nothing = np.zeros((len(groups), BUCKETS))
        return cls(groups=groups, came=nothing, waiting=nothing)

    @classmethod
    def of(cls, columns: DecisionColumns, now_ms: int) -> Self:
        """Return the delays of decisions from a log that was read up to `now_ms`."""
        rows = columns.with_feedback
        since_ms = np.where(rows, columns.feedback_at_ms, now_ms) - columns.at_ms
        cell = groups_of(columns) * np.int64(BUCKETS) + buckets_of(since_ms)
        size = (len(columns.models) + 2) * BUCKETS
        counted = totals(cell, size, np.column_stack([rows, ~rows])).T.reshape(2, -1, BUCKETS)
        return cls(groups=(*columns.models, SEVERAL, NOBODY), came=counted[0], waiting=counted[1])

    def merged(self, other: Self) -> Self:
        """The counts of both, whose decisions are different ones.

        Raises:
            InvalidSetting: they are of other models.
        """
        if self.groups != other.groups:
            raise InvalidSetting(f"delays of {self.groups} and {other.groups}: bring both to the same models first")
        return type(self)(groups=self.groups, came=self.came + other.came, waiting=self.waiting + other.waiting)

    @property
    def arrived(self) -> Floats:
        """Probability that feedback has come within each bucket's upper edge, (G, BUCKETS)."""
        return _arrived(self.came, self.waiting)

    def maturity_ms(self, ratio: float = 0.99) -> int:
        """Age by which this share of the feedback that ever comes has come, whomever it is about; milliseconds.

        Raises:
            InvalidSetting: a share outside of (0, 1].
        """
        if not 0.0 < ratio <= 1.0:
            raise InvalidSetting(f"ratio is {ratio!r}: give a share of the feedback in (0, 1], such as 0.99")
        everybody = _arrived(self.came.sum(axis=0, keepdims=True), self.waiting.sum(axis=0, keepdims=True))[0]
        reached = everybody >= ratio * everybody[-1] * (1.0 - 1e-12)
        return edge_ms(int(reached.argmax())) if everybody[-1] > 0.0 else 0


def groups_of(columns: DecisionColumns) -> Codes:
    """Index into `Delays.groups` of each decision, (n,)."""
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


def _arrived(came: Floats, waiting: Floats) -> Floats:
    at_risk = np.cumsum((came + waiting)[:, ::-1], axis=1)[:, ::-1]
    hazard = np.divide(came, at_risk, out=np.zeros_like(came), where=at_risk > 0.0)
    return np.asarray(1.0 - np.cumprod(1.0 - hazard, axis=1), np.float64)
