"""A model that can be broken while it serves: what the demo does to the best one."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper_agents.demo.models import TRUSTED
from clipper_stream.models.loading import load_model
from clipper_stream.models.model import Rows

DIGITS = 10


class FaultyModel:
    """A scikit-learn model that answers wrong digits while a file exists: a bad deployment at a moment's notice.

    Args:
        uri: Path of the skops file.
        sha256: Digest of that file.
        flag: Path of the file whose existence breaks the model.

    Raises:
        ModelNotLoaded: the skops file is missing, or has another digest.
    """

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
