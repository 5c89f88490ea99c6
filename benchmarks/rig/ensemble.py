"""The four models of `digit_models` that cost something, as hosts load them: each trained when its host starts."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rig.digit_models import DIGIT_MODELS, images

from clipper_loadgen import Dataset

STEP = 1 / 16
"""Between two shades of grey."""


class Digits:
    """One of them.

    Args:
        kind: A name in `DIGIT_MODELS`.
    """

    def __init__(self, kind: str) -> None:
        self._model = DIGIT_MODELS[kind]()

    def predict_batch(self, rows: NDArray[np.float32]) -> Any:
        return self._model.predict_batch(rows)


def noisy_digits(count: int, seed: int) -> Dataset:
    """Pictures, every pixel one shade lighter, one darker or as it was, and their labels; practically none twice."""
    pixels, labels = images()
    rng = np.random.default_rng([seed, 9])
    chosen = rng.integers(0, len(pixels), count)
    return Dataset(np.clip(pixels[chosen] + STEP * rng.integers(-1, 2, (count, pixels.shape[1])), 0, 1), labels[chosen])
