"""The model of the benchmarks: a softmax over 64 inputs to 10 labels, with seeded weights.

About as cheap as a model can be, so that what is measured is the path around it.
"""

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
