"""The runtime `mlflow` runs a packed MLflow model where the operator permits it."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.registry import load_model
from clipper_stream.models.runner import predict_rows
from clipper_stream.models.runtimes.model_files import FileRules

pytestmark = [pytest.mark.runtime, pytest.mark.filterwarnings("ignore")]
PERMITTED = FileRules(unpickle=True)


def sums():
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

    return mlflow.pyfunc, Sums()


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A model's directory in an archive, and its digest."""
    folder = tmp_path_factory.mktemp("mlflow")
    pyfunc, made = sums()
    (folder / "summand").write_text("0.5")
    before = Path.cwd()
    os.chdir(folder)  # MLflow looks for a uv.lock where it is
    try:
        artifacts = {"summand": str(folder / "summand")}
        pyfunc.save_model("in/sums", python_model=made, artifacts=artifacts, pip_requirements=["numpy"])
    finally:
        os.chdir(before)
    archive = Path(shutil.make_archive(str(folder / "sums"), "gztar", folder / "in"))
    return str(archive), hashlib.sha256(archive.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def model(packed):
    return load_model("mlflow", *packed, files=PERMITTED)


def test_a_matrix_is_one_call_and_artifacts_live_as_long_as_the_model(model):
    outcome = predict_rows(model, np.array([[1, 2], [3, 4]], dtype=np.float32))
    assert outcome.outputs == [3.5, 7.5]
    assert {type(output) for output in outcome.outputs} == {float}
    assert outcome.calls == 1


def test_texts_are_given_as_a_list(model):
    assert predict_rows(model, ["abc", ""]).outputs == [3, 0]


def test_json_rows_are_a_data_frame_and_so_is_the_answer(model):
    rows = [{"a": 1, "b": 2, "name": "x"}, {"a": 3, "b": 4, "name": "y"}]
    assert predict_rows(model, rows).outputs == [{"sum": 3, "of": "x"}, {"sum": 7, "of": "y"}]


def test_a_row_that_the_model_refuses_fails_alone(model):
    outcome = predict_rows(model, np.array([[1, 2], [np.nan, 4], [0, 0]]))
    assert outcome.outputs == [3.5, None, 0.5]
    assert "rows are finite" in outcome.failed[1]


def test_nothing_is_unpacked_or_unpickled_where_it_is_not_permitted(packed):
    for parameters in ({}, {"unpickle": True}):
        with pytest.raises(ModelNotLoaded, match=r"set \[models\] unpickle = true"):
            load_model("mlflow", *packed, parameters)


@pytest.mark.parametrize("members", [{"../../escaped": "x"}, {"model/data": "no MLmodel"}])
def test_an_archive_that_is_no_model_is_refused_and_its_folder_removed(tmp_path, monkeypatch, members):
    import zipfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    digest = hashlib.sha256((tmp_path / "model.zip").read_bytes()).hexdigest()
    with pytest.raises(ModelNotLoaded, match=r"pack the directory that mlflow.pyfunc.save_model wrote"):
        load_model("mlflow", str(tmp_path / "model.zip"), digest, files=PERMITTED)
    assert {path.name for path in tmp_path.rglob("*")} == {"temporary", "model.zip"}
