import contextlib
import hashlib
import io
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.registry import load_model
from clipper_stream.models.runner import predict_rows
from clipper_stream.models.runtimes.model_files import FileRules

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of MLflow's, which takes seconds to import: not when tests are collected."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow.pyfunc
    import pandas as pd

    class Sums(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
        """Sums of rows, with a summand that its artifact holds, read anew for each batch."""

        def load_context(self, context):
            self.summand = Path(context.artifacts["summand"])

        def predict(self, context, model_input, params=None):
            if isinstance(model_input, list):
                return [len(text) for text in model_input]
            if isinstance(model_input, pd.DataFrame):
                return pd.DataFrame({"sum": model_input["a"] + model_input["b"], "of": model_input["name"]})
            assert np.isfinite(model_input).all(), "rows are finite"
            return model_input.sum(axis=1) + float(self.summand.read_text())

    folder = tmp_path_factory.mktemp("mlflow")
    (folder / "summand").write_text("0.5")
    artifacts = {"summand": str(folder / "summand")}
    with contextlib.chdir(folder):  # MLflow looks for a uv.lock where it is
        mlflow.pyfunc.save_model("in/sums", python_model=Sums(), artifacts=artifacts, pip_requirements=["numpy"])
    archive = Path(shutil.make_archive(str(folder / "sums"), "gztar", folder / "in"))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return load_model("mlflow", str(archive), digest, files=FileRules(unpickle=True))


JSON = [{"a": 1, "b": 2, "name": "x"}, {"a": 3, "b": 4, "name": "y"}]


@pytest.mark.parametrize(
    ("rows", "outputs", "calls"),
    [
        (np.array([[1, 2], [3, 4]], dtype=np.float32), [3.5, 7.5], 1),
        (np.array([[1, 2], [np.nan, 4], [0, 0]]), [3.5, None, 0.5], 5),
        (["abc", ""], [3, 0], 1),
        (JSON, [{"sum": 3, "of": "x"}, {"sum": 7, "of": "y"}], 1),
    ],
    ids=["a matrix, with what an artifact holds", "a row that the model refuses", "texts as a list", "JSON as a frame"],
)
def test_rows_are_given_in_the_form_that_the_model_takes(model, rows, outputs, calls):
    outcome = predict_rows(model, rows)
    assert (outcome.outputs, outcome.calls) == (outputs, calls)
    assert {type(output) for output in outcome.outputs} <= {type(outputs[0]), type(None)}
    assert all("rows are finite" in why for why in outcome.failed.values())


@pytest.mark.parametrize("members", [{"../../escaped": "x"}, {"model/data": "no MLmodel"}])
def test_an_archive_that_is_no_model_is_refused_and_its_folder_removed(tmp_path, monkeypatch, loaded, members):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    with pytest.raises(ModelNotLoaded, match=r"pack the directory that mlflow.pyfunc.save_model wrote"):
        loaded("mlflow", content.getvalue(), unpickle=True)
    assert {path.name for path in tmp_path.rglob("*")} == {"temporary", "model"}
