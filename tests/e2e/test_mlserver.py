"""The runtime `oip` asks a real MLServer, installed into an environment of its own and started as a user would."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from e2e.programs import reserved_port, run_here, until

from clipper_stream.models.registry import load_model
from clipper_stream.models.runner import predict_rows

pytestmark = pytest.mark.long

MODELS = Path(__file__).with_name("mlserver_models")
LOOPBACK = "127.0.0.1"
ROWS = np.array([[1, 2], [3, 1], [4, 5]])


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory):
    """The program, installed from the package index: it pins other versions than the project, so no extra has it."""
    home = tmp_path_factory.mktemp("mlserver")
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    wanted = ["--quiet", "--requirement", str(MODELS / "requirements.txt")]
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    attempts = [[uv, "pip", "install", "--python", str(home / "bin/python")]] if uv else []
    attempts.append([str(home / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check"])
    said = b""
    for attempt in attempts:
        ended = subprocess.run([*attempt, *wanted], capture_output=True, check=False)
        if ended.returncode == 0:
            return home / "bin/mlserver"
        said += ended.stderr
    assert "CI" not in os.environ, said.decode(errors="replace")
    pytest.skip(f"MLServer cannot be installed here: {said.decode(errors='replace')[-300:]}")


@pytest.fixture(scope="module")
def url(mlserver, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(MODELS / "sum", folder / "sum")
    with reserved_port() as port, reserved_port() as grpc_port, (folder / "log").open("wb") as log:
        settings = {"host": LOOPBACK, "http_port": port, "grpc_port": grpc_port, "metrics_endpoint": None}
        (folder / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0, "debug": False}))
        model = f"http://{LOOPBACK}:{port}/v2/models/sum"
        process = subprocess.Popen([mlserver, "start", folder], stdout=log, stderr=log, cwd=folder)
        try:
            until("MLServer is ready", lambda: is_ready(process, model, folder / "log"))
            yield model
        finally:
            process.terminate()
            process.wait(30)


def is_ready(process, model, log):
    assert process.poll() is None, log.read_text()
    with suppress(httpx.TransportError):
        return httpx.get(f"{model}/ready", timeout=5, trust_env=False).is_success


def loaded(url, **parameters):
    return load_model("oip", url, None, {"timeout_s": 60, **parameters}, allowed=[url])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8"])
def test_every_numeric_dtype_is_understood(url, dtype):
    outcome = predict_rows(loaded(url), ROWS.astype(dtype))
    assert (outcome.outputs, outcome.failed, outcome.calls) == ([3, 4, 9], {}, 1)
    assert {type(output) for output in outcome.outputs} == {float if dtype.startswith("float") else int}


def test_texts_are_understood_and_texts_come_back(url):
    outcome = predict_rows(loaded(url), ["abc", "", "\u4f60\u597d"])
    assert outcome.outputs == ["3 letters", "0 letters", "2 letters"]


def test_a_row_that_the_model_cannot_stand_fails_alone_with_the_words_of_the_model(url):
    outcome = predict_rows(loaded(url), np.array([[1, 2], [13, 1], [4, 5]]))
    assert outcome.outputs == [3, None, 9]
    assert outcome.failed == {1: "ModelFailed: the server answered 400: no thirteen, please"}


def test_the_model_keeps_every_law_as_the_command_line_finds_them(url, tmp_path):
    options = ["--shape", "4", "--parameters", '{"timeout_s": 60}', "--json"]
    ended = run_here("model", "test", url, *options, folder=tmp_path)
    assert ended.code == 0, ended
    report = json.loads(ended.out)
    assert {finding["state"] for finding in report["findings"]} == {"kept"}
