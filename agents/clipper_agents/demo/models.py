"""Five really different models of the same thing, trained in seconds, saved without pickle, one of them breakable."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipper_agents.demo.data import SIDE, Digits, distorted
from clipper_stream.models.model import Rows
from clipper_stream.models.registry import load_model
from clipper_topics.manifests import BatchSpec, InputSpec, ModelManifest

VALIDATION_COPIES = 4
"""800 distorted validation pictures: the error of the best is known to about half a percent."""
TRUSTED = ("sklearn.tree._tree.Tree",)
"""Types in the demo's files that skops does not know to be harmless."""
DIGITS = 10
PICTURE = InputSpec(dtype="float32", shape=[SIDE * SIDE])
FAULTY_MODEL = "clipper_agents.demo.models:FaultyModel"

# The queries come one by one, and a call of a scikit-learn model costs half a millisecond whatever it is about: waiting
# 4 ms for company halves the number of calls. The objective leaves room for it.
BATCH = BatchSpec(limit="aimd", target_ms=25.0, max_rows=256, max_delay_ms=4.0)


class TrainedModel(NamedTuple):
    """A model that can be served, from a skops file; `validation_error` is its share of wrong digits."""

    name: str
    path: Path
    sha256: str
    validation_error: float

    @property
    def ref(self) -> str:
        return f"{self.name}:1"

    def manifest(self, flag: Path | None = None) -> ModelManifest:
        """How it is served; with a flag, by a wrapper that the flag's file breaks."""
        path, parameters = str(self.path), {"trusted": list(TRUSTED)}
        served: dict[str, Any] = {"runtime": "sklearn", "uri": path, "sha256": self.sha256, "parameters": parameters}
        if flag is not None:
            served = {"uri": FAULTY_MODEL, "parameters": {"uri": path, "sha256": self.sha256, "flag": str(flag)}}
        return ModelManifest(name=self.name, input=PICTURE, batch=BATCH, **served)


class FaultyModel:
    """A scikit-learn model that answers wrong digits while a file exists: a bad deployment at a moment's notice."""

    def __init__(self, uri: str, sha256: str, flag: str) -> None:
        # a manifest may give any parameters: which types are trusted must not be one of them
        self._model = load_model("sklearn", uri, sha256, {"trusted": list(TRUSTED)})
        self._flag = Path(flag)

    def predict_batch(self, inputs: Rows) -> NDArray[Any]:
        """The model's digits; while the flag exists, the next one in place of each."""
        outputs: NDArray[Any] = np.asarray(self._model.predict_batch(inputs))
        return (outputs + 1) % DIGITS if self._flag.exists() else outputs


def train(digits: Digits, folder: Path, seed: int) -> list[TrainedModel]:
    """Fit the model of every recipe and save it in the folder. The same seed gives the same models."""
    import skops.io  # noqa: PLC0415 - an optional extra

    validation = distorted(digits.validation, VALIDATION_COPIES, np.random.default_rng([seed, 16]))
    models = []
    for name, (copies, estimator) in _recipes(seed).items():
        examples = distorted(digits.train, copies, np.random.default_rng([seed, 14, len(name)]))
        estimator.fit(examples.rows.astype(np.float32), examples.labels)
        path = folder / f"{name}.skops"
        skops.io.dump(estimator, path)
        error = float((estimator.predict(validation.rows.astype(np.float32)) != validation.labels).mean())
        models.append(TrainedModel(name, path.resolve(), hashlib.sha256(path.read_bytes()).hexdigest(), error))
    return models


def _recipes(seed: int) -> dict[str, tuple[int, Any]]:
    """By name: how many distorted copies of the training rows the model is fitted to, and the unfitted model."""
    # an optional extra, and slow to import
    from sklearn import decomposition, ensemble, kernel_approximation, linear_model, neighbors, svm  # noqa: PLC0415
    from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415

    components = decomposition.PCA(28, random_state=seed)
    kernel_features = kernel_approximation.Nystroem(gamma=0.001, n_components=120, random_state=seed)
    return {
        "svm": (4, svm.SVC(gamma=0.001, C=10.0, random_state=seed)),  # pyright: ignore[reportArgumentType] (inferred)
        "neighbors": (5, neighbors.KNeighborsClassifier(3, algorithm="brute")),
        "bayes": (5, make_pipeline(components, QuadraticDiscriminantAnalysis(reg_param=0.02))),
        "logistic": (3, make_pipeline(kernel_features, linear_model.LogisticRegression(C=10.0, max_iter=500))),
        "forest": (4, ensemble.RandomForestClassifier(24, random_state=seed)),
    }


def best_of(models: Sequence[TrainedModel]) -> TrainedModel:
    """The model with the least validation error, the first of equals."""
    return min(models, key=lambda model: model.validation_error)
