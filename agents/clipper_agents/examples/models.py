"""Small models to try the system with: `runtime = "python"`, `uri = "clipper_agents.examples.models:sum_of_row"`."""

import time
import zlib
from typing import Any

from numpy.typing import NDArray

MOST_COMMON_DIGIT = 3
"""183 of the 1797 images of handwritten digits that come with scikit-learn show a 3, more than any other digit."""
_CHECKSUMS = 2**32


def sum_of_row(rows: NDArray[Any]) -> NDArray[Any]:
    """The sum of each row's numbers.

    >>> import numpy as np
    >>> sum_of_row(np.array([[1, 2], [3, 4]]))
    array([3, 7])
    """
    sums: NDArray[Any] = rows.reshape(len(rows), -1).sum(axis=1)
    return sums


def most_common_digit(rows: NDArray[Any]) -> list[int]:
    """A 3 for every image of a digit: the model that every other one has to beat."""
    return [MOST_COMMON_DIGIT] * len(rows)


def slow(rows: NDArray[Any], *, seconds_per_batch: float = 0.05, seconds_per_row: float = 0.0) -> NDArray[Any]:
    """The sum of each row's numbers, after a while: something for deadlines and batch limits to work on.

    Args:
        rows: The matrix.
        seconds_per_batch: How long a batch takes, whatever its size.
        seconds_per_row: How much longer each row makes it.
    """
    time.sleep(seconds_per_batch + seconds_per_row * len(rows))
    return sum_of_row(rows)


def flaky(rows: NDArray[Any], *, failing_ratio: float = 0.1) -> NDArray[Any]:
    """The sum of each row's numbers, unless a batch has one of the rows that this model cannot stand.

    Args:
        rows: The matrix.
        failing_ratio: Share of all possible rows that it cannot stand, in [0, 1]; always the same ones.

    Raises:
        ValueError: the batch has such a row.
    """
    for number, row in enumerate(rows):
        if zlib.crc32(row.tobytes()) < failing_ratio * _CHECKSUMS:
            raise ValueError(f"row {number} is one that this model cannot stand")
    return sum_of_row(rows)
