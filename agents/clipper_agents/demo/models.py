"""Five really different models of the same thing, trained in seconds, saved without pickle, one of them breakable."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clipper_agents.demo.data import SIDE, Digits, distorted
from clipper_agents.observability.logging import event
from clipper_loadgen.draws import IntArray
from clipper_stream.models.model import Rows
from clipper_stream.models.registry import load_model
from clipper_topics.manifests import BatchSpec, InputSpec, ModelManifest

logger = logging.getLogger(__name__)

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


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model that can be served, from a skops file; `validation_error` is its share of wrong digits."""

    name: str
    title: str
    path: Path
    sha256: str
    validation_error: float

    @property
    def ref(self) -> str:
        """`name:version`."""
        return f"{self.name}:1"

    def manifest(self, flag: Path | None = None) -> ModelManifest:
        """How it is served; with a flag, by a wrapper that the flag's file breaks."""
        manifest = ModelManifest(
            name=self.name,
            runtime="sklearn",
            uri=str(self.path),
            sha256=self.sha256,
            parameters={"trusted": list(TRUSTED)},
            input=PICTURE,
            batch=BATCH,
        )
        if flag is None:
            return manifest
        parameters = {"uri": manifest.uri, "sha256": self.sha256, "flag": str(flag)}
        return msgspec.structs.replace(manifest, runtime="python", uri=FAULTY_MODEL, sha256=None, parameters=parameters)


class FaultyModel:
    """A scikit-learn model that answers wrong digits while a file exists: a bad deployment at a moment's notice."""

    def __init__(self, uri: str, sha256: str, flag: str) -> None:
        # a manifest may give any parameters: which types are trusted must not be one of them
        self._model = load_model("sklearn", uri, sha256, {"trusted": list(TRUSTED)})
        self._flag = Path(flag)
        self._rng = np.random.default_rng(list(hashlib.sha256(uri.encode()).digest()))

    def predict_batch(self, inputs: Rows) -> NDArray[Any]:
        """The model's digits; while the flag exists, another random digit for each of them."""
        outputs = np.asarray(self._model.predict_batch(inputs))
        if not self._flag.exists():
            return outputs
        wrong: NDArray[Any] = (outputs + self._rng.integers(1, DIGITS, len(outputs))) % DIGITS
        return wrong


def train(digits: Digits, folder: Path, seed: int) -> list[TrainedModel]:
    """Fit the model of every recipe and save it in the folder. The same seed gives the same models."""
    import skops.io  # noqa: PLC0415 - an optional extra

    validation = distorted(digits.validation, VALIDATION_COPIES, np.random.default_rng([seed, 13]))
    models = []
    for name, (title, copies, estimator) in _recipes(seed).items():
        examples = distorted(digits.train, copies, np.random.default_rng([seed, 14, len(name)]))
        estimator.fit(examples.rows.astype(np.float32), examples.labels)
        path = folder / f"{name}.skops"
        skops.io.dump(estimator, path)
        wrong: IntArray = estimator.predict(validation.rows.astype(np.float32)) != validation.labels
        error, digest = float(wrong.mean()), hashlib.sha256(path.read_bytes()).hexdigest()
        event(logger, "model trained", model=name, validation_error=round(error, 4))
        models.append(TrainedModel(name, title, path.resolve(), digest, error))
    return models


def _recipes(seed: int) -> dict[str, tuple[str, int, Any]]:
    """What each model is, for people, how many distorted copies of the training rows it is fitted to, and itself."""
    # an optional extra, and slow to import
    from sklearn.decomposition import PCA  # noqa: PLC0415
    from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis  # noqa: PLC0415
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415
    from sklearn.kernel_approximation import Nystroem  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.svm import SVC  # noqa: PLC0415

    svm = SVC(gamma=0.001, C=10.0, random_state=seed)  # pyright: ignore[reportArgumentType] (inferred)
    bayes = make_pipeline(PCA(28, random_state=seed), QuadraticDiscriminantAnalysis(reg_param=0.02))
    kernel_features = Nystroem(gamma=0.001, n_components=120, random_state=seed)
    logistic = make_pipeline(kernel_features, LogisticRegression(C=10.0, max_iter=500))
    return {
        "svm": ("support vectors, RBF kernel", 4, svm),
        "neighbors": ("3 nearest neighbours", 5, KNeighborsClassifier(3, algorithm="brute")),
        "bayes": ("Gaussian Bayes on 28 principal components", 5, bayes),
        "logistic": ("logistic regression on kernel features", 3, logistic),
        "forest": ("random forest of 24 trees", 4, RandomForestClassifier(24, random_state=seed)),
    }


def best_of(models: Sequence[TrainedModel]) -> TrainedModel:
    """The model with the least validation error, the first of equals."""
    return min(models, key=lambda model: model.validation_error)
