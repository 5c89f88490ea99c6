"""Five scikit-learn models whose costs differ as in Clipper's figure 3, trained on scikit-learn's handwritten digits.

The images are enlarged from 8 by 8 to 16 by 16 pixels, so that a row costs something. The support vector machine with a
kernel learns from four noisy copies: its cost a row is its number of support vectors.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC, LinearSVC

INPUTS = 256
NOISE, COPIES = 0.2, 4


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained estimator as the library's hosts see it."""

    estimator: Any

    def predict_batch(self, inputs: Any) -> Any:
        return self.estimator.predict(inputs)


class NoOp:
    """The same label for every row."""

    def predict_batch(self, inputs: Any) -> list[int]:
        return [0] * len(inputs)


def images() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """1797 images of shape [256], in [0, 1], and their digits."""
    pixels, digits = load_digits(return_X_y=True)
    large = np.kron(pixels.reshape(-1, 8, 8) / 16, np.ones((2, 2)))
    return large.reshape(-1, INPUTS).astype(np.float32), digits


def _copies() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rows, digits = images()
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=NOISE, size=(COPIES, *rows.shape))
    return (rows + noise).reshape(-1, INPUTS).astype(np.float32), np.tile(digits, COPIES)


def _fitted(estimator: Any, rows: tuple[NDArray[np.float32], NDArray[np.int64]]) -> Fitted:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what is measured is its cost
        return Fitted(estimator.fit(*rows))


DIGIT_MODELS: Mapping[str, Callable[[], Any]] = {
    "no-op": NoOp,
    "linear SVM": lambda: _fitted(LinearSVC(max_iter=50, random_state=0), images()),
    "logistic regression": lambda: _fitted(LogisticRegression(max_iter=50), images()),
    "random forest": lambda: _fitted(RandomForestClassifier(50, max_depth=16, random_state=0), images()),
    "kernel SVM": lambda: _fitted(SVC(gamma=0.02), _copies()),
}
