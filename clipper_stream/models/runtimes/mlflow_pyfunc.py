"""The runtime `mlflow`: an MLflow model with the flavour `python_function`, in a zip or tar of its directory.

Loading one imports the modules that come with it and unpickles, whatever its flavour: that needs the operator's
permission. Rows of numbers are given as one numpy matrix, texts as a list, rows of a table and JSON rows that are
dictionaries as a pandas DataFrame.

Source: MLflow documentation, "python_function custom models".
"""

import io
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from clipper_stream.models.model import Rows
from clipper_stream.models.runtimes.model_files import FileRuntime, ModelFile, import_extra
from clipper_stream.models.runtimes.tables import frame_maker

_DESCRIPTION = "MLmodel"


@dataclass(frozen=True, slots=True)
class PyfuncModel:
    """An MLflow model behind the `Model` protocol; it may read from its unpacked folder as long as it lives."""

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


def _load_archive(file: ModelFile) -> PyfuncModel:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a host tells nobody what it serves
    pandas, pyfunc = import_extra("mlflow", "pandas"), import_extra("mlflow", "mlflow.pyfunc")
    folder = tempfile.TemporaryDirectory(prefix="clipper-mlflow-")
    try:
        unpack(file.content, folder.name)
        frame = frame_maker(file.columns) if file.columns else pandas.DataFrame
        return PyfuncModel(pyfunc.load_model(str(_described(Path(folder.name)))), frame, folder)
    except BaseException:
        folder.cleanup()
        raise


def unpack(content: bytes, folder: str) -> None:
    """Write the files of a zip or tar archive, which may be compressed, into a folder that no member leaves.

    Raises:
        ValueError: no archive, or a member that is no plain file inside the folder.
    """
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as zipped:
                zipped.extractall(folder)  # noqa: S202 - zipfile keeps every member inside
        else:
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                archive.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise ValueError(f"no zip or tar archive of plain files: {error}") from error


def _described(folder: Path) -> Path:
    """The folder that has the file `MLmodel`: the archive's own, or the only one in it."""
    found = [folder, *(each for each in folder.iterdir() if each.is_dir())]
    for each in found:
        if (each / _DESCRIPTION).is_file():
            return each
    raise ValueError(f"the archive has no file {_DESCRIPTION}")


PYFUNC = FileRuntime(
    name="mlflow",
    make=_load_archive,
    advice="pack the directory that mlflow.pyfunc.save_model wrote",
    UNPICKLES=True,
)
