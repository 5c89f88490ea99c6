"""Five really different models of the same thing, trained in seconds and saved without pickle."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipper_agents.demo.data import Digits, IntArray, distorted
from clipper_agents.observability.logging import event

logger = logging.getLogger(__name__)

VALIDATION_COPIES = 4
"""800 distorted validation pictures: the error of the best is known to about half a percent."""
TRUSTED = ("sklearn.tree._tree.Tree",)
"""Types in the demo's files that skops does not know to be harmless."""


@dataclass(frozen=True, slots=True)
class ModelRecipe:
    """How a model is trained.

    Attributes:
        title: What it is, for people.
        copies: Distorted copies of the training rows that it is fitted to.
        trusted: Types in its skops file that skops does not know to be harmless.
    """

    title: str
    copies: int
    trusted: tuple[str, ...] = ()


RECIPES = {
    "svm": ModelRecipe("support vectors, RBF kernel", 4),
    "neighbors": ModelRecipe("3 nearest neighbours", 5),
    "bayes": ModelRecipe("Gaussian Bayes on 28 principal components", 5),
    "logistic": ModelRecipe("logistic regression on kernel features", 3),
    "forest": ModelRecipe("random forest of 24 trees", 4, TRUSTED),
}


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model that can be served.

    Attributes:
        name: Short name, part of topic names.
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


def train(digits: Digits, folder: Path, seed: int) -> list[TrainedModel]:
    """Fit the model of every recipe and save it in the folder, in the order of `RECIPES`.

    The same seed gives the same models.
    """
    import skops.io  # noqa: PLC0415 - an optional extra

    validation = distorted(digits.validation, VALIDATION_COPIES, np.random.default_rng([seed, 13]))
    models = []
    for name, estimator in _estimators(seed).items():
        recipe = RECIPES[name]
        examples = distorted(digits.train, recipe.copies, np.random.default_rng([seed, 14, len(name)]))
        estimator.fit(examples.rows.astype(np.float32), examples.labels)
        path = folder / f"{name}.skops"
        skops.io.dump(estimator, path)
        wrong: IntArray = estimator.predict(validation.rows.astype(np.float32)) != validation.labels
        error, digest = float(wrong.mean()), hashlib.sha256(path.read_bytes()).hexdigest()
        event(logger, "model trained", model=name, validation_error=round(error, 4))
        models.append(TrainedModel(name, recipe.title, path.resolve(), digest, error, recipe.trusted))
    return models


def _estimators(seed: int) -> dict[str, Any]:
    # an optional extra, and slow to import
    from sklearn.decomposition import PCA  # noqa: PLC0415
    from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis  # noqa: PLC0415
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415
    from sklearn.kernel_approximation import Nystroem  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.svm import SVC  # noqa: PLC0415

    kernel_features = Nystroem(gamma=0.001, n_components=120, random_state=seed)
    return {
        "svm": SVC(gamma=0.001, C=10.0, random_state=seed),  # pyright: ignore[reportArgumentType] (inferred)
        "neighbors": KNeighborsClassifier(3, algorithm="brute"),
        "bayes": make_pipeline(PCA(28, random_state=seed), QuadraticDiscriminantAnalysis(reg_param=0.02)),
        "logistic": make_pipeline(kernel_features, LogisticRegression(C=10.0, max_iter=500)),
        "forest": RandomForestClassifier(24, random_state=seed),
    }


def best_of(models: Sequence[TrainedModel]) -> TrainedModel:
    """The model with the least validation error, the first of equals."""
    return min(models, key=lambda model: model.validation_error)
