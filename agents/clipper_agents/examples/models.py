"""Small models to try the system with: `runtime = "python"`, `uri = "clipper_agents.examples.models:sum_of_row"`."""

import time
import zlib
from typing import Any

from numpy.typing import NDArray


def sum_of_row(rows: NDArray[Any]) -> NDArray[Any]:
    """The sum of each row's numbers."""
    sums: NDArray[Any] = rows.reshape(len(rows), -1).sum(axis=1)
    return sums


def most_common_digit(rows: NDArray[Any]) -> list[int]:
    """A 3 for every image of scikit-learn's digits, the most common one: the model that others have to beat."""
    return [3] * len(rows)


def slow(rows: NDArray[Any], *, seconds_per_batch: float = 0.05) -> NDArray[Any]:
    """The sum of each row's numbers, after a while: something for deadlines and batch limits to work on."""
    time.sleep(seconds_per_batch)
    return sum_of_row(rows)


def flaky(rows: NDArray[Any], *, failing_ratio: float = 0.1) -> NDArray[Any]:
    """The sum of each row's numbers; a batch with one of the rows that it cannot stand, always the same, fails."""
    for number, row in enumerate(rows):
        if zlib.crc32(row.tobytes()) < failing_ratio * 2**32:
            raise ValueError(f"row {number} is one that this model cannot stand")
    return sum_of_row(rows)
