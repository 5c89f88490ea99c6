"""Five really different models of the same thing, trained in seconds and saved without pickle."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipper_agents.demo.data import Digits, IntArray, Labelled
from clipper_agents.observability.logging import event

logger = logging.getLogger(__name__)

VALIDATION_COPIES = 4
"""800 distorted validation pictures: the error of the best is known to about half a percent."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to be.

    Attributes:
        name: Short name, part of topic names.
        title: What it is, for people.
        copies: Distorted copies of the training rows that it is fitted to.
        make: The unfitted estimator, by seed.
        trusted: Types in its skops file that skops does not know to be harmless.
    """

    name: str
    title: str
    copies: int
    make: Callable[[int], Any]
    trusted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model that can be served.

    Attributes:
        name: Short name.
        title: What it is, for people.
        path: Its skops file.
        sha256: Digest of the file.
        validation_error: Share of wrong digits on the validation rows, in [0, 1].
        trusted: Types in its file that are to be trusted by name.
    """

    name: str
    title: str
    path: Path
    sha256: str
    validation_error: float
    trusted: tuple[str, ...] = ()

    @property
    def ref(self) -> str:
        """`name:version`."""
        return f"{self.name}:1"


def _svm(seed: int) -> Any:
    from sklearn.svm import SVC  # noqa: PLC0415 - an optional extra, and slow to import; so below

    return SVC(gamma=0.001, C=10.0, random_state=seed)  # pyright: ignore[reportArgumentType] (inferred from a default)


def _neighbors(seed: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415

    del seed
    return KNeighborsClassifier(3, algorithm="brute")


def _bayes(seed: int) -> Any:
    from sklearn.decomposition import PCA  # noqa: PLC0415
    from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415

    return make_pipeline(PCA(28, random_state=seed), QuadraticDiscriminantAnalysis(reg_param=0.02))


def _logistic(seed: int) -> Any:
    from sklearn.kernel_approximation import Nystroem  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415

    features = Nystroem(gamma=0.001, n_components=120, random_state=seed)
    return make_pipeline(features, LogisticRegression(C=10.0, max_iter=500))


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415

    return RandomForestClassifier(24, random_state=seed)


TRUSTED = ("sklearn.tree._tree.Tree",)
"""Types in the demo's files that skops does not know to be harmless."""

CANDIDATES = (
    Candidate("svm", "support vectors, RBF kernel", 4, _svm),
    Candidate("neighbors", "3 nearest neighbours", 5, _neighbors),
    Candidate("bayes", "Gaussian Bayes on 28 principal components", 5, _bayes),
    Candidate("logistic", "logistic regression on kernel features", 3, _logistic),
    Candidate("forest", "random forest of 24 trees", 4, _forest, TRUSTED),
)


def train(digits: Digits, folder: Path, seed: int) -> list[TrainedModel]:
    """Fit every candidate and save it in the folder, in the order of `CANDIDATES`.

    The same seed gives the same models.
    """
    validation = digits.validation.distorted(VALIDATION_COPIES, np.random.default_rng([seed, 13]))
    return [_trained(candidate, digits, validation, folder, seed) for candidate in CANDIDATES]


def _trained(candidate: Candidate, digits: Digits, validation: Labelled, folder: Path, seed: int) -> TrainedModel:
    import skops.io  # noqa: PLC0415 - an optional extra

    rng = np.random.default_rng([seed, 14, len(candidate.name)])
    examples = digits.train.distorted(candidate.copies, rng)
    estimator = candidate.make(seed).fit(examples.rows.astype(np.float32), examples.labels)
    path = folder / f"{candidate.name}.skops"
    skops.io.dump(estimator, path)
    wrong: IntArray = estimator.predict(validation.rows.astype(np.float32)) != validation.labels
    error = float(wrong.mean())
    event(logger, "model trained", model=candidate.name, validation_error=round(error, 4))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return TrainedModel(candidate.name, candidate.title, path.resolve(), digest, error, candidate.trusted)


def best_of(models: Sequence[TrainedModel]) -> TrainedModel:
    """The model with the least validation error, the first of equals."""
    return min(models, key=lambda model: model.validation_error)
