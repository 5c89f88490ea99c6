"""Blocks: each decision belongs to one of a fixed number of them, by its place in the log alone.

Rules of this file:
- A block is a hash of partition and offset, so it depends neither on the order of rows nor on how a log is cut into
  chunks, and two candidates are compared on the same blocks.
- Decisions are dealt out one by one. So intervals take queries for independent draws; they do not know of bursts.
- A fold is a set of blocks: what is predicted for a block was learned from other blocks.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from clipper_stream.evaluation.log.columns import DecisionColumns

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
    mixed = (place + np.uint64(1)) * _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    return ((mixed ^ (mixed >> np.uint64(31))) % np.uint64(BLOCKS)).astype(np.intp)


def folds_of(blocks: Blocks) -> Blocks:
    """Fold of each decision, in [0, FOLDS), (n,)."""
    return blocks % FOLDS
