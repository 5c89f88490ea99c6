"""The examples of runtimes run, and give what they say."""

import importlib.util
import runpy
import sys
import tomllib
from pathlib import Path

import pytest
from stub_server import StubServer, serving

from clipper_agents.host.engine_builder import prepare
from clipper_agents.settings import load_settings
from clipper_stream.models.runner import predict_rows

pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples/runtimes"


@pytest.fixture
def example(monkeypatch, tmp_path):
    """Imports an example by its name."""
    monkeypatch.chdir(tmp_path)  # MLflow copies the uv.lock of the folder that it is run in
    monkeypatch.syspath_prepend(EXAMPLES)
    imported = []

    def load(name):
        imported.append(name)
        return importlib.import_module(name)

    yield load
    for name in imported:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("onnx_estimator", ["setosa", "versicolor", "virginica"]),
        ("joblib_estimator", [0, 1, 2]),
        ("mlflow_model", [6.0, 14.0]),
    ],
)
def test_an_example_writes_a_model_and_serves_it(name, outputs, example, tmp_path):
    assert example(name).main(tmp_path) == outputs


def test_every_example_of_a_runtime_is_run_here():
    said = Path(__file__).read_text()
    assert [path.stem for path in EXAMPLES.glob("*.py") if f'"{path.stem}' not in said] == []


def test_file_types_are_told_from_bytes_as_magika_itself_does(example):
    import magika

    files = [ROOT / name for name in ("README.md", "pyproject.toml", "Makefile", "clipper_stream/errors.py", "LICENSE")]
    files += [ROOT / "benchmarks/results/soak.svg", ROOT / "tests/conftest.py"]
    reference = magika.Magika()
    expected = {path.name: str(reference.identify_bytes(path.read_bytes()).dl.label) for path in files}
    assert example("file_types").main(files) == expected
    assert expected["errors.py"] == "python"


def test_the_configuration_of_file_types_loads_its_model_as_a_host_does(example, tmp_path):
    (tmp_path / "clipper.toml").write_text(example("file_types").config())
    assert tomllib.loads((tmp_path / "clipper.toml").read_text())["model"][0]["runtime"] == "onnx"
    settings = load_settings(tmp_path / "clipper.toml", {})
    (manifest,) = settings.models
    predictor = prepare(manifest, settings.allowed, settings.files)
    rows = [b"#!/bin/bash\nset -eu\ncd /tmp && ls | sort\n", (ROOT / "README.md").read_bytes()]
    outcome = predict_rows(predictor.model, rows)
    assert outcome.outputs == ["shell", "markdown"]
    assert outcome.calls == 1


def test_the_example_of_boosters_tells_the_classes(capsys):
    pytest.importorskip("lightgbm", reason="the extra lightgbm is not installed")
    pytest.importorskip("xgboost", reason="the extra xgboost is not installed")
    runpy.run_path(str(EXAMPLES / "boosters.py"), run_name="__main__")
    said = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert said == said[:1] * 3


def test_the_example_of_a_server_prints_its_output(capsys, monkeypatch):
    pytest.importorskip("urllib3", reason="the extra oip is not installed")
    with serving(StubServer()) as stub:
        monkeypatch.setattr(sys, "argv", ["oip.py", stub.url, "1.5,2"])
        runpy.run_path(str(EXAMPLES / "oip.py"), run_name="__main__")
    assert capsys.readouterr().out == "1.5\n"
