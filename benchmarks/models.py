"""The models of the benchmarks: cheap ones, one that takes long to make, and ones that wait as for an accelerator."""

import hashlib
import random
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

INPUTS, LABELS = 64, 10
_WEIGHTS = np.random.default_rng(0).normal(size=(INPUTS, LABELS)).astype(np.float32)


def digits(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """The most probable label of each row; the softmax itself would not change which one that is."""
    labels: NDArray[np.int64] = (rows @ _WEIGHTS).argmax(axis=1)
    return labels


def largest(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """Where each row's largest number is: for rows of any length."""
    places: NDArray[np.int64] = rows.argmax(axis=1)
    return places


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


RIGHT = 1
"""The true label of every row: whether an output is right needs no look at its query."""
_DIGESTS = 2**32
_draws: dict[int, random.Random] = {}


def accelerator(rows: NDArray[Any], *, batch_s: float = 0.05) -> list[int]:
    """A batch takes the same time whatever its size."""
    time.sleep(batch_s)
    return [RIGHT] * len(rows)


def straggler(rows: NDArray[Any], *, seed: int = 0, error_ratio: float = 0.3) -> list[int]:
    """Mostly some milliseconds, now and then, in a heavy tail, up to half a second; wrong about rows of its own.

    Args:
        rows: The matrix.
        seed: Of this model's waits and errors.
        error_ratio: Share of all rows that it is wrong about, independent of other seeds.
    """
    time.sleep(_wait_s(_draws.setdefault(seed, random.Random(seed))))
    return [_label(row, seed, error_ratio) for row in rows]


def _wait_s(draw: random.Random) -> float:
    """5 to 15 ms; one batch in fifty a Pareto tail (shape 1.5) from 50 ms on, at most 0.5 s."""
    wait_s = draw.uniform(0.005, 0.015)
    return wait_s + (min(0.5, 0.05 * draw.paretovariate(1.5)) if draw.random() < 0.02 else 0.0)


def _label(row: NDArray[Any], seed: int, error_ratio: float) -> int:
    digest = hashlib.blake2b(row.tobytes(), digest_size=4, key=seed.to_bytes(4, "big")).digest()
    share = int.from_bytes(digest, "big") / _DIGESTS
    return RIGHT if share >= error_ratio else 2 + int(8 * share / error_ratio)
