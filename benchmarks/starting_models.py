"""A model that answers at once, and one whose making takes its time, as an import of a framework does."""

import time
from typing import Any

from numpy.typing import NDArray


def prompt(rows: NDArray[Any]) -> list[int]:
    """One output a row."""
    return [1] * len(rows)


class SlowToMake:
    """Is made in Python code that takes the interpreter lock all the time.

    Args:
        seconds: How long it is made.
    """

    def __init__(self, seconds: float = 2.0) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            sum(range(1000))

    def __call__(self, rows: NDArray[Any]) -> list[int]:
        """One output a row."""
        return [1] * len(rows)
