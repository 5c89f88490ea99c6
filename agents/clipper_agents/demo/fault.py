"""The failure of the best model: a model that can be broken while it serves, and what breaks it."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper_agents.demo.models import TRUSTED
from clipper_agents.demo.plan import FAILED, DemoPlan
from clipper_stream.models.model import Rows
from clipper_stream.models.registry import load_model

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


class FaultSwitch:
    """Breaks and repairs a `FaultyModel` from outside of the process that serves it.

    Args:
        flag: Path of the file whose existence breaks the model.
        plan: Says when: during the middle phase.
    """

    def __init__(self, flag: Path, plan: DemoPlan) -> None:
        self._flag, self._plan, self._broken = flag, plan, False

    def before_query(self, query: int) -> None:
        """Break or repair the model where a phase begins; called before the query is sent."""
        broken = query < self._plan.queries and self._plan.phase_of(query) == FAILED
        if broken != self._broken:
            self._broken = broken
            if broken:
                self._flag.touch()
            else:
                self._flag.unlink(missing_ok=True)
