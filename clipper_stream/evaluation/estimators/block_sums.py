"""Terms summed by block: all that a value and its intervals need, whatever the number of decisions.

Rules of this file:
- A block is a hash of partition and offset, so it depends neither on the order of rows nor on how a log is cut into
  chunks, and two candidates are compared on the same blocks.
- Decisions are dealt out one by one. So intervals take queries for independent draws; they do not know of bursts. Where
  contexts were drawn, a block is a hash of the context: all its decisions are one draw.
- A fold is a set of blocks: what is predicted for a block was learned from other blocks.
- Sums of chunks are added; a log of any length is BLOCKS rows of four numbers for each estimator and candidate.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from clipper_stream.evaluation.log.columns import Bools, DecisionColumns, Floats

Blocks: TypeAlias = NDArray[np.intp]

BLOCKS = 512
"""A standard error of so many sums is itself exact to 3 % (1 / sqrt(2 * 512)), and their moments cost nothing."""
FOLDS = 4
"""Of three quarters of the log almost as much is learned as of all; divides BLOCKS."""

_GOLDEN, _FIRST, _SECOND = (np.uint64(k) for k in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def blocks_of(columns: DecisionColumns) -> Blocks:
    """Block of each decision, in [0, BLOCKS), (n,).

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, section 4 (its mixing
    function, with the partition as the upper 16 bits).
    """
    place = columns.offset.astype(np.uint64) + (columns.partition.astype(np.uint64) << np.uint64(48))
    if any(config.contexts_drawn for config in columns.configs.values()):
        hashes = [0 if name is None else xxh3_64_intdigest(name.encode()) for name in (*columns.contexts, None)]
        drawn = np.array(hashes, np.uint64)[columns.context]
        place = np.where(drawn > 0, drawn, place)
    mixed = (place + np.uint64(1)) * _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    return ((mixed ^ (mixed >> np.uint64(31))) % np.uint64(BLOCKS)).astype(np.intp)


def folds_of(blocks: Blocks) -> Blocks:
    """Fold of each decision, in [0, FOLDS), (n,)."""
    return blocks % FOLDS


def totals(code: NDArray[Any], size: int, values: Floats | Bools) -> Floats:
    """Sums of the values, (n, K), by code, (size, K)."""
    columns = [summed(column, code, size) for column in values.T]
    return np.stack(columns, axis=1) if columns else np.zeros((size, 0))


def summed(values: Floats | Bools | None, code: NDArray[Any], size: int) -> Floats:
    """Sums of the values, (n,), by code, (size,); None is 1 each."""
    return np.bincount(code, weights=values, minlength=size).astype(np.float64, copy=False)


@dataclass(frozen=True, slots=True)
class AdditiveSums:
    """Sums over decisions, each field a number or an array."""

    def merged(self, other: Self) -> Self:
        """Return the sums of both, which must be over different decisions."""
        return replace(self, **{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})


Sums = TypeVar("Sums", bound=AdditiveSums)


def plus(sums: Sums | None, part: Sums) -> Sums:
    """Add the sums of one more chunk; None: it is the first."""
    return part if sums is None else sums.merged(part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Parts of n decisions; the value is mean(base) + sum(numerator) / sum(denominator).

    Every estimator has this form, so sums, merging and intervals are written once. What is None costs nothing.

    Attributes:
        base: (n,); None is 0 each.
        numerator: (n,); None is 0 each.
        denominator: (n,); None is 1 each, so that the quotient is a mean too.

    Source: Owen, "Monte Carlo theory, methods and examples", 2013, section 9.2 (both kinds of importance sampling).
    """

    base: Floats | None = None
    numerator: Floats | None = None
    denominator: Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSums(AdditiveSums):
    """Sums over n decisions, by block.

    Attributes:
        blocks: Sums of base, decisions, numerator and denominator of each block, (BLOCKS, 4).

    Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, section 8.3 (units larger than a row).
    """

    decisions: int
    blocks: Floats

    @classmethod
    def empty(cls) -> Self:
        return cls(decisions=0, blocks=np.zeros((BLOCKS, 4)))

    @classmethod
    def of(cls, terms: Terms, block: Blocks) -> Self:
        counts, nothing = summed(None, block, BLOCKS), np.zeros(BLOCKS)
        columns = (
            nothing if terms.base is None else summed(terms.base, block, BLOCKS),
            counts,
            nothing if terms.numerator is None else summed(terms.numerator, block, BLOCKS),
            counts if terms.denominator is None else summed(terms.denominator, block, BLOCKS),
        )
        return cls(decisions=len(block), blocks=np.column_stack(columns))

    @property
    def value(self) -> float:
        """The estimate; NaN where there is nothing to make it of."""
        return float(value_of(self.blocks.sum(axis=0)))

    @property
    def influences(self) -> Floats:
        """Influence of each block on the value, summing to 0, (BLOCKS,): the infinitesimal jackknife.

        Source: Efron, "The jackknife, the bootstrap and other resampling plans", 1982, section 6.2.
        """
        base, count, numerator, denominator = self.blocks.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            of_base = (self.blocks[:, 0] - base / count * self.blocks[:, 1]) / count
            quotient = (self.blocks[:, 2] - numerator / denominator * self.blocks[:, 3]) / denominator
        return np.asarray(of_base + quotient)

    @property
    def standard_error(self) -> float:
        """Of the value, by the spread of the blocks; NaN where there is no value."""
        pulls = self.influences
        return float(np.sqrt(len(pulls) / (len(pulls) - 1.0) * (pulls @ pulls)))


def value_of(sums: Floats) -> Floats:
    """Values of sums whose last axis is base, decisions, numerator, denominator; NaN where a divisor is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1] + sums[..., 2] / sums[..., 3])
