"""An MLflow model in a zip, served by the runtime `mlflow`: `python examples/runtimes/mlflow_model.py [FOLDER]`.

The operator permits it in clipper.toml by `[models] unpickle = true`; a manifest cannot.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np

from clipper_stream.models.registry import file_digest, load_model
from clipper_stream.models.runtimes.model_files import FileRules


class Doubles(mlflow.pyfunc.PythonModel):
    """Twice the sum of a row."""

    def predict(self, model_input, params=None):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
        """One output a row."""
        del params
        return 2 * np.asarray(model_input).sum(axis=1)


def main(folder: Path) -> list[Any]:
    """Save a model, pack its directory, load it with its digest and the permission, and ask it about two rows."""
    with tempfile.TemporaryDirectory() as saved:
        mlflow.pyfunc.save_model(f"{saved}/doubles", python_model=Doubles(), pip_requirements=["numpy"])
        file = shutil.make_archive(str(folder / "doubles"), "zip", saved)

    model = load_model("mlflow", file, file_digest("mlflow", file), files=FileRules(unpickle=True))
    return list(model.predict_batch(np.array([[1, 2], [3, 4]], dtype=np.float32)))


if __name__ == "__main__":
    print(main(Path(sys.argv[1] if sys.argv[1:] else ".")))
