"""Terms summed by block: all that a value and its intervals need, whatever the number of decisions.

Rules of this file:
- Sums of chunks are added; a log of any length is BLOCKS rows of four numbers for each estimator and candidate.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from clipper_stream.evaluation.estimators.blocks import BLOCKS
from clipper_stream.evaluation.estimators.estimator import Terms
from clipper_stream.evaluation.estimators.propensity_matrices import Choices
from clipper_stream.evaluation.log.columns import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSums:
    """Sums over n decisions, by block.

    Attributes:
        decisions: n.
        blocks: Sums of base, share, numerator and denominator of each block, (BLOCKS, 4).
        squares: Sum of squares of base + numerator.

    >>> none = BlockSums.empty()
    >>> none.decisions, none.value
    (0, nan)

    Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, section 8.3 (units larger than a row).
    """

    decisions: int
    blocks: Floats
    squares: float

    @classmethod
    def empty(cls) -> Self:
        """Return the sums of no decision."""
        return cls(decisions=0, blocks=np.zeros((BLOCKS, 4)), squares=0.0)

    @classmethod
    def of(cls, terms: Terms, choices: Choices) -> Self:
        """The sums of the terms of these choices."""
        base, numerator = _shared(terms.base, choices), _shared(terms.numerator, choices)
        denominator = _shared(terms.denominator, choices)
        share = _summed(choices.share, choices)
        nothing = np.zeros(BLOCKS)
        columns = (
            nothing if base is None else _summed(base, choices),
            share,
            nothing if numerator is None else _summed(numerator, choices),
            share if denominator is None else _summed(denominator, choices),
        )
        parts = [part for part in (base, numerator) if part is not None]
        squares = sum(float(one @ other) for one in parts for other in parts)
        return cls(decisions=len(choices), blocks=np.column_stack(columns), squares=squares)

    def merged(self, other: Self) -> Self:
        """The sums of both, whose decisions are different ones."""
        return type(self)(
            decisions=self.decisions + other.decisions,
            blocks=self.blocks + other.blocks,
            squares=self.squares + other.squares,
        )

    @property
    def value(self) -> float:
        """The estimate; NaN where there is nothing to make it of."""
        return float(value_of(self.blocks.sum(axis=0)))

    @property
    def influences(self) -> Floats:
        """Influence of each block on the value, summing to 0, (BLOCKS,): the infinitesimal jackknife.

        Source: Efron, "The jackknife, the bootstrap and other resampling plans", 1982, section 6.2.
        """
        base, share, numerator, denominator = self.blocks.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            of_base = (self.blocks[:, 0] - base / share * self.blocks[:, 1]) / share
            quotient = (self.blocks[:, 2] - numerator / denominator * self.blocks[:, 3]) / denominator
        return np.asarray(of_base + quotient)

    @property
    def standard_error(self) -> float:
        """Of the value, by the spread of the blocks; NaN where there is no value."""
        pulls = self.influences
        return float(np.sqrt(len(pulls) / (len(pulls) - 1.0) * (pulls @ pulls)))


def value_of(totals: Floats) -> Floats:
    """Values of totals whose last axis is base, share, numerator, denominator; NaN where a divisor is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(totals[..., 0] / totals[..., 1] + totals[..., 2] / totals[..., 3])


def _shared(part: Floats | None, choices: Choices) -> Floats | None:
    return part if part is None or choices.share is None else part * choices.share


def _summed(part: Floats | None, choices: Choices) -> Floats:
    return np.bincount(choices.block, weights=part, minlength=BLOCKS).astype(np.float64, copy=False)
