"""Pictures of handwritten digits: 900 to train with, 897 to ask about, none of them twice the same.

Source: scikit-learn's `digits`, 1797 pictures of 8 by 8 pixels with values from 0 to 16 (Alpaydin and Kaynak, 1998).
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]

TRAIN_ROWS = 900
VALIDATION_ROWS = 200
"""The last of the training rows: no model is fitted to them, and the best is who errs least on them."""
SIDE, INK = 8, 16.0
SHIFTS = ((0, 1), (0, -1), (1, 0), (-1, 0))
NOISE = 2.0
"""Standard deviation of the noise, of 16 steps of ink: enough that the five models err between 2 and 15 %."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Pictures, a row of 64 values each, and the digits that they show."""

    rows: FloatArray
    labels: IntArray

    def part(self, start: int, stop: int | None = None) -> "Labelled":
        """Some of them."""
        return Labelled(self.rows[start:stop], self.labels[start:stop])

    def distorted(self, copies: int, rng: np.random.Generator) -> "Labelled":
        """So many distorted copies of each picture."""
        rows = np.concatenate([distort(self.rows, rng) for _ in range(copies)])
        return Labelled(rows, np.tile(self.labels, copies))


@dataclass(frozen=True, slots=True, eq=False)
class Digits:
    """The data set in three parts.

    Attributes:
        train: What models are fitted to.
        validation: What tells which model is best.
        traffic: What is asked about.
    """

    train: Labelled
    validation: Labelled
    traffic: Labelled


def load_digits(seed: int) -> Digits:
    """The data set, shuffled by the seed and parted."""
    import sklearn.datasets  # noqa: PLC0415 - an optional extra that takes a second to import

    rows, labels = map(np.asarray, sklearn.datasets.load_digits(return_X_y=True))
    order = np.random.default_rng([seed, 11]).permutation(len(rows))
    everything = Labelled(rows[order], labels[order].astype(np.int64))
    fitted = TRAIN_ROWS - VALIDATION_ROWS
    return Digits(everything.part(0, fitted), everything.part(fitted, TRAIN_ROWS), everything.part(TRAIN_ROWS))


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


def draw_traffic(digits: Digits, count: int, seed: int) -> Labelled:
    """So many distinct pictures to ask about, in random order: every picture of the traffic part in turn."""
    rng = np.random.default_rng([seed, 12])
    pool = digits.traffic
    rounds = -(-count // len(pool.labels))
    order = np.concatenate([rng.permutation(len(pool.labels)) for _ in range(max(1, rounds))])[:count]
    return Labelled(distort(pool.rows[order], rng), pool.labels[order])
