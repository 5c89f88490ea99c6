"""The runtime `xgboost`: a booster in XGBoost's JSON or UBJSON format, as `Booster.save_model` writes it.

Rules of this file:
- Both formats hold numbers and names and run no code; a pickled booster and the binary format of old are refused.
- Their reader trusts them: a file that was cut off ends the process, or has it ask for all memory there is. So a file
  is looked through to its end before.
- The bytes whose digest was compared are those that are read: the file is not opened twice.
- A booster that stopped early answers with the trees up to its best iteration, as XGBoost's own estimators do.

Source: XGBoost documentation, "Introduction to Model IO" and "Learning Task Parameters".
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from clipper_stream.models.model import Model
from clipper_stream.models.runtimes import boosters as boosting
from clipper_stream.models.runtimes.model_files import cannot_be_loaded, check_allowed, missing_library, read
from clipper_stream.models.runtimes.ubjson import check_whole

__all__ = ["NEEDS_DIGEST", "UNPICKLES", "check_allowed", "load", "read"]

NEEDS_DIGEST = True
UNPICKLES = False
_JSON_BEGINS = frozenset({b'{"', b"{ ", b"{\n", b"{\r"})
_TWO_CLASSES = frozenset({"binary:logistic", "binary:hinge"})
_MANY_CLASSES = "multi:softprob"
_LABELS_ONLY = "multi:softmax"
"""Gives labels where `multi:softprob` gives probabilities, of the same trees: it is read as that."""


def load(uri: str, content: bytes, parameters: Mapping[str, Any], allowed: Sequence[str] | None = None) -> Model:
    """Load the booster of a file.

    Args:
        uri: Where the file is, for messages.
        content: Bytes of the file.
        parameters: Those of `boosting.BoosterParameters`.
        allowed: Holds the file.

    Raises:
        ModelNotLoaded: XGBoost is missing, the file is no model of it, or cannot give what the parameters ask for.
    """
    del allowed
    wanted = boosting.read_parameters(uri, "xgboost", parameters)
    booster, objective, classes = _booster(uri, content, wanted.threads)
    boosting.check_fits(uri, objective, classes, wanted)
    trees = _trees(booster)

    def values(matrix: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = booster.inplace_predict(matrix, iteration_range=trees)
        return found

    return boosting.BoosterModel(values=values, features=booster.num_features(), classes=classes, parameters=wanted)


def _booster(uri: str, content: bytes, threads: int) -> tuple[Any, str, int]:
    """The booster, its objective, and how many classes it tells apart, 0: none."""
    xgboost = _xgboost(uri)
    try:
        _check_whole(content)
        booster = xgboost.Booster({"nthread": threads})
        booster.load_model(bytearray(content))
        booster.set_param({"nthread": threads, "device": "cpu"})
        learner = json.loads(booster.save_config())["learner"]
        objective: str = learner["objective"]["name"]
        classes = int(learner["learner_model_param"]["num_class"])
        if objective == _LABELS_ONLY:
            booster.set_param({"objective": _MANY_CLASSES, "num_class": classes})
            objective = _MANY_CLASSES
        if objective == _MANY_CLASSES:
            return booster, objective, classes
        return booster, objective, 2 if objective in _TWO_CLASSES else 0
    except BaseException as error:  # XGBoost raises its own errors, and reading its configuration others
        raise cannot_be_loaded(uri, error, "write it with Booster.save_model('model.ubj')") from error


def _check_whole(content: bytes) -> None:
    """Nothing, when the file is one JSON or UBJSON object to its end; XGBoost's reader takes that for granted."""
    if content[:2] in _JSON_BEGINS:
        json.loads(content)
    else:
        check_whole(content)


def _trees(booster: Any) -> tuple[int, int]:
    """The iterations that answer; (0, 0) for all."""
    best = booster.attr("best_iteration")
    return (0, int(best) + 1) if best is not None and best.isdecimal() else (0, 0)


def _xgboost(uri: str) -> Any:
    try:
        import xgboost  # noqa: PLC0415 - an optional extra, loaded only by who uses it
    except ImportError as error:
        raise missing_library(uri, "xgboost", error) from error
    return xgboost
