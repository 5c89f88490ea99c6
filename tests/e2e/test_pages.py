"""What a page cannot know, the address of a Kafka, ids and numbers, is put in by `PAGES`, where it can be seen.

What is not typed: Docker (`test_first_answer`), a Kafka with users (`test_secured_kafka`), and Kafka's own tools.
"""

import ast
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from builders.pages import blocks
from e2e.gateways import FREE_PORTS, WITH_GATEWAY, serves
from e2e.programs import CLIPPER_STREAM, Program, Shell, environment, environment_of, reserved_port, run_here, until
from kafka_fixture import own_topics
from sklearn.linear_model import LogisticRegression

from clipper_agents import exits
from clipper_stream.client import SyncClient
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS.parent / "examples/clipper.toml"
STAYS = re.compile(r"clipper-stream (up|worker|watch|gateway)\b")
"""Commands that run until they are ended."""


def typed_on(page: str, put_in: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """What a page tells to type, in its order, with what it cannot know; and the lines of output below each."""
    text = re.sub(r"\\\n\s*", "", (DOCS / page).read_text())
    for written, meant in put_in.items():
        assert written in text, written
        text = text.replace(written, meant)
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        command = re.fullmatch(r"(?: {4,}|(?=\$))(?:\$ )?((?:clipper-stream|python) .+)", line)
        if command:
            found.append((command[1], []))
        elif found and line.startswith("    ") and not line.strip().startswith(("git ", "make ", "mkdir ", "pip ")):
            found[-1][1].append(line.strip())
    return found


class Terminal(Shell):
    """A shell in which commands may stay, and be joined by pipes."""

    def type(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; one that stays runs until it is ready, and ends in order when it is told to."""
        if STAYS.match(line):
            with Program(*shlex.split(line)[1:], folder=self.folder, environ=self.environ) as program:
                program.ready()
                program.signal(signal.SIGTERM)
                return subprocess.CompletedProcess(line, program.ended(), "", program.log)
        if line.startswith("clipper-stream ") and not re.search(r"[|<>&;$]", line):
            done = run_here(*shlex.split(line)[1:], folder=self.folder, environ=self.environ, typed="y\n")
            return subprocess.CompletedProcess(line, done.code, done.out, "\n".join(done.err))
        path = f"{CLIPPER_STREAM.parent}:{os.environ['PATH']}"
        return subprocess.run(
            line, shell=True, cwd=self.folder, env={**self.environ, "PATH": path}, input="y\n",
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip


def alike(line: str) -> str:
    """A line without what differs from run to run: numbers, times, names of users and the width of columns."""
    return re.sub(r"\s+", " ", re.sub(r"\b(ada|root)\b|[a-z]*\d[\w.:%-]*|r-[0-9a-f]+|\.\.\.", "0", line)).strip()


# ---- The tutorial ------------------------------------------------------------------------------------------------


def test_the_tutorial_works_as_it_is_typed_and_ctrl_c_ends_all_of_it(tmp_path: Path) -> None:
    with reserved_port() as port:
        type_the_tutorial(tmp_path, port)


def type_the_tutorial(tmp_path: Path, port: int) -> None:
    page, temporary = "tutorial/first-pipeline.md", tmp_path / "temporary"
    temporary.mkdir()
    for program in blocks(DOCS / page, "python"):
        (name,) = re.findall(r"\A# (\w+\.py)\n", program)
        (tmp_path / name).write_text(program.replace("9092", str(port)))
    whole, kept, ensemble = (text.replace("9092", str(port)) for text in blocks(DOCS / page, "toml"))
    policy, *_ = re.findall(r"^policy = .*\n", whole, re.MULTILINE)
    configuration = tmp_path / "clipper.toml"
    configuration.write_text(whole.replace(f"[broker]\nport = {port}\n", kept))  # chapter 5, from the beginning
    up, predict, feedback, teach, apply = (line for line, _ in typed_on(page, {}) if "kill" not in line)
    shell = Terminal(tmp_path, environment(PYTHONUNBUFFERED="1", TMPDIR=str(temporary)))

    def asked_of(models: int) -> dict[str, Any]:
        """The answer in which so many models have a part; on a busy machine none may be in time at first."""
        found: dict[str, Any] = json.loads(shell.type(predict).stdout)
        return found if len(found["models"]) == models else {}

    with Program(*shlex.split(up)[1:], folder=tmp_path, environ=shell.environ) as pipeline:
        assert pipeline.ready() == {"bootstrap": f"127.0.0.1:{port}"}
        answer = until("an answer in time", lambda: asked_of(1))
        assert answer["output"] == int(answer["models"][0]["model"] == "careful")
        assert answer["models"][0]["propensity"] == 0.5
        assert shell.type(feedback.replace("QUERY_ID", answer["query_id"])).stdout == "applied\n"
        taught = shell.type(teach)
        asked = [ast.literal_eval(line.partition(" ")[2]) for line in taught.stdout.splitlines()]
        assert len(asked) == 5, taught.stderr
        assert asked[-1]["careful"] > 150, asked
        serves = re.findall(r'msg="child serves" child=router-0 pid=(\d+)', pipeline.log)
        os.kill(int(serves[-1]), signal.SIGKILL)
        until("the router answers in time", lambda: asked_of(1))
        configuration.write_text(configuration.read_text().replace(policy, ensemble))
        assert "policy" in shell.type(apply).stdout
        assert {"confidence", "output"} <= set(until("both models are asked", lambda: asked_of(2)))
        started = pipeline.children()
        assert any("kafka.Kafka" in process.command for process in started)
        pipeline.signal(signal.SIGINT)
        assert pipeline.ended() == 0, pipeline.log[-4000:]
        assert len(pipeline.lines) == 1
        until("no process is left", lambda: not any(process.runs for process in started), 10.0)
        assert list(temporary.iterdir()) == []


# ---- The how-tos, at one pipeline --------------------------------------------------------------------------------

DIGITS = """
[[model]]
name = "svm"
uri = "acme.models:brightness"
parameters = { threshold = 0.45 }
input = { dtype = "float32", shape = [64] }
colocated = true

[[model]]
name = "forest"
version = "2"
uri = "acme.models:brightness"
input = { dtype = "float32", shape = [64] }

[[application]]
name = "digits"
models = ["svm:1", "forest:2"]
input = { dtype = "float32", shape = [64] }
objective_ms = 60000
rollout = {}
"""


@dataclass(frozen=True)
class Pipeline:
    """What `up` serves for the how-tos, and what they would have to look up."""

    shell: Terminal
    bootstrap: str
    gateway: str


@pytest.fixture(scope="module")
def pipeline(kafka: KafkaConnection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The example's pipeline with `digits` beside it, three hundred answered queries, and two dead letters."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "acme").mkdir()
    (folder / "acme/models.py").write_text(blocks(DOCS / "how-to/add-a-model.md", "python")[0])
    write_estimator(folder / "models/svm-2.skops")
    example = EXAMPLE.read_text().replace("partitions = 4 ", "partitions = 2 ").replace("objective_ms = 200 ", "")
    (folder / "clipper.toml").write_text(example + DIGITS)
    with own_topics(kafka) as topics:
        shell = Terminal(folder, environment_of(kafka, topics, USER="ada", PYTHONPATH=str(folder), **FREE_PORTS))
        with Program("up", folder=folder, environ={**shell.environ, **WITH_GATEWAY}) as up:
            ready = up.ready()
            ask(kafka, topics)
            serves(ready["gateway"])
            yield Pipeline(shell, kafka.bootstrap, ready["gateway"])
            up.signal(signal.SIGTERM)
            assert up.ended() == 0


def write_estimator(path: Path) -> None:
    rows = np.random.default_rng(0).random((50, 64), np.float32)
    path.parent.mkdir()
    skops.io.dump(LogisticRegression().fit(rows, rows.mean(axis=1) > 0.5), path)
    np.save(path.parent.parent / "samples.npy", rows[:20])


def ask(kafka: KafkaConnection, topics: Catalogue) -> None:
    rows = np.random.default_rng(1).random((300, 64), np.float32)
    with SyncClient(kafka.bootstrap, prefix=topics.prefix) as client:
        for number, row in enumerate(rows):
            answer = client.predict("digits", row.tolist(), context="user-42" if number % 3 else None)
            client.feedback(answer, label=int(row.mean() > 0.5))
        for number in range(2):
            client.feedback(client.predict("sums", [number]), label="much")


@pytest.mark.slow
def test_the_how_tos_work_as_they_are_typed(pipeline: Pipeline) -> None:
    shell, failed = pipeline.shell, []
    for page, put_in, ends in PAGES:
        known = {"BOOTSTRAP": pipeline.bootstrap, "GATEWAY": pipeline.gateway}
        given = {written: known.get(meant, meant) for written, meant in put_in.items()}
        for number, (line, shown) in enumerate(typed_on(page, given)):
            done = shell.type(line)
            if done.returncode != ends.get(number, exits.OK):
                failed.append((page, line, done.returncode, done.stdout[-500:], done.stderr[-500:]))
            told = [*map(alike, (done.stdout + done.stderr).splitlines())]
            expected = map(alike, shown) if page in TRANSCRIPTS else ()
            failed += [(page, line, each, told) for each in expected if each not in {*told, "0"}]
    assert not failed, "\n".join(map(str, failed))


TRANSCRIPTS = {"how-to/change-models-live.md"}
"""Pages whose output is compared, line by line."""
VERIFIED = {
    "localhost:9092": "BOOTSTRAP",
}
THREE = {"apply --config": "apply --dry-run --config", "/etc/clipper/clipper.toml": "clipper.toml"}
TESTED = {"churn-3.ubj": "svm-2.skops", "--shape 12": "--shape 64", "churn:3": "forest:2"}
PAGES: list[tuple[str, dict[str, str], dict[int, int]]] = [
    ("how-to/runbooks.md", {"HOST:PORT": "BOOTSTRAP"}, {}),
    ("how-to/read-dead-letters.md", {"replay 41 42": "replay 0 1", "show 41": "show 0"}, {}),
    ("how-to/change-models-live.md", {}, {3: exits.FAILURE}),
    ("how-to/use-the-console.md", {}, {}),
    ("how-to/watch-for-drift.md", {}, {}),
    ("how-to/evaluate-before-switching.md", {}, {}),
    ("how-to/verify-and-restore.md", VERIFIED, {}),
    ("how-to/test-a-model.md", TESTED, {2: exits.FAILURE}),  # nobody serves there
    ("how-to/rerun-traffic.md", {"--until 1h": "--until 0s"}, {}),
    ("how-to/ask-over-http.md", {"http://localhost:8080": "GATEWAY"}, {}),
    ("reference/replay-files.md", {}, {}),
    ("how-to/back-up-and-restore.md", {}, {}),
    ("how-to/three-machines.md", THREE, {}),  # its router is missed at the end
]
"""Pages in the order in which they are typed, what is put in, and the commands that do not end with 0, by number."""
