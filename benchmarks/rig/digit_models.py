"""Five scikit-learn models whose costs differ as in Clipper's figure 3, trained on scikit-learn's handwritten digits.

64 numbers a row make a plain linear model so cheap (0.2 µs a row) that the engine around it would be measured. So the
linear models work on random Fourier features of the image, which brings a row to some microseconds, as in the paper.
The support vector machine with a kernel learns from noisy copies too: its cost a row is its number of support vectors.
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
from sklearn.kernel_approximation import RBFSampler
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC

from clipper_loadgen import Dataset

SVM_FEATURES, REGRESSION_FEATURES = 1_000, 500
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
    """1797 images of shape [64], in [0, 1], and their digits."""
    pixels, digits = load_digits(return_X_y=True)
    return (pixels / 16).astype(np.float32), digits


def _copies() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rows, digits = images()
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=NOISE, size=(COPIES, *rows.shape))
    return (rows + noise).reshape(-1, rows.shape[1]).astype(np.float32), np.tile(digits, COPIES)


def _fitted(estimator: Any, rows: tuple[NDArray[np.float32], NDArray[np.int64]]) -> Fitted:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what is measured is its cost
        return Fitted(estimator.fit(*rows))


def _on_features(count: int, estimator: Any) -> Fitted:
    features = RBFSampler(gamma=0.05, n_components=count, random_state=0)
    return _fitted(make_pipeline(features, estimator), images())


DIGIT_MODELS: Mapping[str, Callable[[], Any]] = {
    "no-op": NoOp,
    "linear SVM": lambda: _on_features(SVM_FEATURES, LinearSVC(max_iter=50, random_state=0)),
    "logistic regression": lambda: _on_features(REGRESSION_FEATURES, LogisticRegression(max_iter=50)),
    "random forest": lambda: _fitted(RandomForestClassifier(50, max_depth=16, random_state=0), images()),
    "kernel SVM": lambda: _fitted(SVC(gamma=0.05), _copies()),
}


def plain_linear_svm() -> Fitted:
    """On the 64 numbers themselves: a call costs as much as some hundred rows."""
    return _fitted(LinearSVC(max_iter=50, random_state=0), images())


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
