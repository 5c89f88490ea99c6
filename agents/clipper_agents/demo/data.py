"""Pictures of handwritten digits: 900 to train with, 897 to send as queries, none of them twice the same.

Source: scikit-learn's `digits`, 1797 pictures of 8 by 8 pixels with values from 0 to 16 (Alpaydin and Kaynak, 1998).
"""

from dataclasses import dataclass

import numpy as np

from clipper_loadgen import Dataset
from clipper_loadgen.draws import FloatArray, row_of_each

TRAIN_ROWS = 900
VALIDATION_ROWS = 200
"""The last of the training rows: no model is fitted to them, and the best model is the one that errs least on them."""
SIDE, INK = 8, 16.0
SHIFTS = ((0, 1), (0, -1), (1, 0), (-1, 0))
NOISE = 2.0
"""Standard deviation of the noise, of 16 steps of ink: enough that the five models err between 2 and 15 %."""


@dataclass(frozen=True, slots=True, eq=False)
class Digits:
    """The data set in three parts; a row has 64 values, a label is the digit that the picture shows."""

    train: Dataset
    """What models are fitted to."""
    validation: Dataset
    """What tells which model is best."""
    traffic: Dataset
    """What queries are drawn from."""


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
    """The given number of distorted copies of each picture."""
    rows = np.concatenate([distort(pictures.rows, rng) for _ in range(copies)])
    return Dataset(rows, np.tile(pictures.labels, copies))


def distort(rows: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Each picture shifted by a pixel in a random direction, with noise, rounded to tenths within [0, 16]."""
    pictures = rows.reshape(-1, SIDE, SIDE)
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1)))
    shifted = np.empty_like(pictures)
    directions = rng.integers(0, len(SHIFTS), len(pictures))
    for direction, (down, right) in enumerate(SHIFTS):
        chosen = directions == direction
        shifted[chosen] = padded[chosen, 1 + down : 1 + down + SIDE, 1 + right : 1 + right + SIDE]
    noisy = shifted + rng.normal(0.0, NOISE, shifted.shape)
    return np.clip(np.round(noisy, 1), 0.0, INK).reshape(len(rows), SIDE * SIDE)


def draw_traffic(digits: Digits, count: int, seed: int) -> Dataset:
    """Distinct pictures for queries, in random order: every picture of the traffic part in turn, distorted."""
    rng = np.random.default_rng([seed, 12])
    pool = digits.traffic
    order = row_of_each(np.arange(count), len(pool.labels), seed)
    return Dataset(distort(pool.rows[order], rng), pool.labels[order])
