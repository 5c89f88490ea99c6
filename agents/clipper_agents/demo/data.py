"""Pictures of handwritten digits: 900 to train with, 897 to send as queries, none of them twice the same.

Source: scikit-learn's `digits`, 1797 pictures of 8 by 8 pixels with values from 0 to 16 (Alpaydin and Kaynak, 1998).
"""

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from clipper_loadgen import Dataset
from clipper_loadgen.draws import row_of_each

TRAIN_ROWS = 900
VALIDATION_ROWS = 200
"""The last of the training rows: no model is fitted to them, and the best model is the one that errs least on them."""
SIDE, INK = 8, 16.0
SHIFTS = np.array([(0, 1), (0, -1), (1, 0), (-1, 0)])
NOISE = 2.0
"""Standard deviation of the noise, of 16 steps of ink: enough that the five models err between 2 and 15 %."""


class Digits(NamedTuple):
    """The data set in three parts: for fitting, for telling which model is best, and for queries.

    A row has 64 values, a label is the digit that the picture shows.
    """

    train: Dataset
    validation: Dataset
    traffic: Dataset


def load_digits(seed: int) -> Digits:
    """The data set, shuffled by the seed and divided."""
    import sklearn.datasets  # noqa: PLC0415 - an optional extra that takes a second to import

    rows, labels = map(np.asarray, sklearn.datasets.load_digits(return_X_y=True))
    order = np.random.default_rng([seed, 11]).permutation(len(rows))
    whole = Dataset(rows[order], labels[order].astype(np.int64))
    fitted = TRAIN_ROWS - VALIDATION_ROWS
    return Digits(part(whole, 0, fitted), part(whole, fitted, TRAIN_ROWS), part(whole, TRAIN_ROWS))


def part(pictures: Dataset, start: int, stop: int | None = None) -> Dataset:
    """The pictures from `start` to before `stop`."""
    return Dataset(pictures.rows[start:stop], pictures.labels[start:stop])


def distorted(pictures: Dataset, copies: int, rng: np.random.Generator) -> Dataset:
    """Copies of each picture, shifted by a pixel in a random direction, with noise, in tenths within [0, 16]."""
    padded = np.pad(np.tile(pictures.rows, (copies, 1)).reshape(-1, SIDE, SIDE), ((0, 0), (1, 1), (1, 1)))
    down, right = 1 + SHIFTS[rng.integers(0, len(SHIFTS), len(padded))].T
    shifted = sliding_window_view(padded, (SIDE, SIDE), axis=(1, 2))[np.arange(len(padded)), down, right]
    noisy = shifted + rng.normal(0.0, NOISE, shifted.shape)
    rows = np.clip(np.round(noisy, 1), 0.0, INK).reshape(-1, SIDE * SIDE)
    return Dataset(rows, np.tile(pictures.labels, copies))


def draw_traffic(digits: Digits, count: int, seed: int) -> Dataset:
    """Distinct pictures for queries, in random order: every picture of the traffic part in turn, distorted."""
    pool = digits.traffic
    order = row_of_each(np.arange(count), len(pool.labels), seed)
    return distorted(Dataset(pool.rows[order], pool.labels[order]), 1, np.random.default_rng([seed, 12]))
