"""The runtime `mlflow`: an MLflow model with the flavour `python_function`, in a zip or tar of its directory.

Loading one imports the modules that come with it and unpickles, whatever its flavour: that needs the operator's
permission. Rows of numbers are given as one numpy matrix, texts as a list, and JSON rows that are dictionaries as a
pandas DataFrame.

Source: MLflow documentation, "python_function custom models".
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.model import Model, Rows
from clipper_stream.models.runtimes.archives import unpack
from clipper_stream.models.runtimes.model_files import (
    cannot_be_loaded,
    check_allowed,
    check_parameters,
    missing_library,
    read,
)

__all__ = ["NEEDS_DIGEST", "UNPICKLES", "PyfuncModel", "check_allowed", "load", "read"]

NEEDS_DIGEST = True
UNPICKLES = True
_DESCRIPTION = "MLmodel"


@dataclass(frozen=True, slots=True)
class PyfuncModel:
    """An MLflow model behind the `Model` protocol.

    Attributes:
        pyfunc: The loaded model.
        frame: Makes a pandas DataFrame of dictionaries.
        folder: Its unpacked directory, which it may read from as long as it lives.
    """

    pyfunc: Any
    frame: Any
    folder: "tempfile.TemporaryDirectory[str]"

    def predict_batch(self, inputs: Rows) -> Sequence[Any] | NDArray[Any]:
        """Return one output a row, computed in one call."""
        rows = self.frame(inputs) if isinstance(inputs, list) and isinstance(inputs[0], dict) else inputs
        outputs = self.pyfunc.predict(rows)
        if hasattr(outputs, "columns"):  # a DataFrame: one column is a value a row, several are a dictionary a row
            single = len(outputs.columns) == 1
            outputs = outputs.iloc[:, 0] if single else outputs.to_dict("records")
        plain: Sequence[Any] = outputs.tolist() if hasattr(outputs, "tolist") else outputs
        return plain


def load(uri: str, content: bytes, parameters: Mapping[str, Any], allowed: Sequence[str] | None = None) -> Model:
    """Load the model of an archive.

    Args:
        uri: Where the archive is, for messages.
        content: Bytes of the archive; what is in it is imported and unpickled.
        parameters: None are known.
        allowed: Holds the archive; says nothing about what a pickle does.

    Raises:
        ModelNotLoaded: MLflow or pandas is missing, the archive is none or would leave its folder, or holds no
            `python_function`.
    """
    del allowed
    check_parameters(uri, "mlflow", parameters, {})
    folder = tempfile.TemporaryDirectory(prefix="clipper-mlflow-")
    try:
        unpack(content, Path(folder.name))
        path = _described(Path(folder.name))
        pyfunc, frame = _libraries(uri)
        loaded = pyfunc.load_model(str(path))
    except ModelNotLoaded:
        folder.cleanup()
        raise
    except BaseException as error:
        folder.cleanup()
        raise cannot_be_loaded(uri, error, "pack the directory that mlflow.pyfunc.save_model wrote") from error
    return PyfuncModel(loaded, frame, folder)


def _libraries(uri: str) -> tuple[Any, Any]:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a host tells nobody what it serves
    try:
        import mlflow.pyfunc  # noqa: PLC0415 - an optional extra, loaded only by who uses it
        import pandas as pd  # noqa: PLC0415
    except ImportError as error:
        raise missing_library(uri, "mlflow", error) from error
    return mlflow.pyfunc, pd.DataFrame


def _described(folder: Path) -> Path:
    """The folder that has the file `MLmodel`: the archive's own, or the only one in it."""
    found = [folder, *(each for each in folder.iterdir() if each.is_dir())]
    for each in found:
        if (each / _DESCRIPTION).is_file():
            return each
    raise ValueError(f"the archive has no file {_DESCRIPTION}")
