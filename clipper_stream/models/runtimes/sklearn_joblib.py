"""The runtime `joblib`: an estimator that joblib wrote, which is a pickle and runs whatever it says.

It is for files that cannot be written anew: skops (`sklearn`) and ONNX (`onnx`) hold the same estimators, and run
nothing.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.model import Model
from clipper_stream.models.runtimes.model_files import (
    cannot_be_loaded,
    check_allowed,
    check_parameters,
    missing_library,
    read,
)
from clipper_stream.models.runtimes.sklearn_skops import EstimatorModel

__all__ = ["NEEDS_DIGEST", "UNPICKLES", "check_allowed", "load", "read"]

NEEDS_DIGEST = True
UNPICKLES = True


def load(uri: str, content: bytes, parameters: Mapping[str, Any], allowed: Sequence[str] | None = None) -> Model:
    """Load the estimator of a file.

    Args:
        uri: Where the file is, for messages.
        content: Bytes of the file; they are unpickled.
        parameters: None are known.
        allowed: Holds the file; says nothing about what a pickle does.

    Raises:
        ModelNotLoaded: scikit-learn is missing, or the file holds nothing that predicts.
    """
    del allowed
    check_parameters(uri, "joblib", parameters, {})
    try:
        import joblib  # noqa: PLC0415 - comes with the optional extra, loaded only by who uses it
    except ImportError as error:
        raise missing_library(uri, "sklearn", error) from error
    try:
        estimator = joblib.load(io.BytesIO(content))
    except BaseException as error:
        raise cannot_be_loaded(uri, error, "write it with joblib.dump, by the same version of scikit-learn") from error
    if not callable(getattr(estimator, "predict", None)):
        kind = type(estimator).__name__
        raise ModelNotLoaded(f"model file {uri!r} holds a {kind}, which has no predict: dump a fitted estimator")
    return EstimatorModel(estimator)
