"""The demo is shortened: with so few queries policies cannot be judged, but nothing may be lost."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from e2e.programs import CLIPPER_STREAM, descendants, environment, slowed, until

pytestmark = pytest.mark.timeout(630)

QUERIES = 600
MEASURED = re.compile(r"this machine answer(s [\d.,]+ queries a second|ed no query)")


def test_every_query_is_answered_once_and_every_truth_counted_once(tmp_path: Path):
    out = tmp_path / "report"
    options = ("--queries", str(QUERIES), "--rate", "400", "--out", str(out))
    environ = {**os.environ, "MPLCONFIGDIR": str(tmp_path / "matplotlib")}  # as on a machine without a font cache
    command = [CLIPPER_STREAM, "demo", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environ)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{(out / 'processes.log').read_text()[-3000:]}"
    assert MEASURED.search(done.stdout)
    assert [line for line in done.stderr.splitlines() if not line.startswith("downloading ")] == []
    assert re.findall(r"^console: http://127\.0\.0\.1:\d+/console$", done.stdout, re.MULTILINE)

    said = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert said["answers"] == f"{QUERIES} of {QUERIES} queries, 0 more than once"
    assert said["feedback"] == f"{QUERIES} sent, {QUERIES} read, 0 refused"
    assert said["offsets"] == "all committed"
    assert f" rows of {QUERIES} feedbacks equal " in said["learned"]
    assert re.findall(r"latency p99 +[\d.,]+ ms", done.stdout)

    rows = re.findall(r"^(exp3|exp4|\w+:1)( broke)? +([\d.]+) +([\d.]+) +([\d.]+)$", done.stdout, re.MULTILINE)
    assert [name for name, *_ in rows[:2]] == ["exp3", "exp4"]
    assert len(rows) == 2 + 5
    ((_, _, before, failed, _),) = [row for row in rows if row[1]]
    assert float(failed) > 50 > float(before)
    assert {path.name for path in out.iterdir()} == {"errors.png", "processes.log"}


@pytest.mark.parametrize(
    ("number", "when"),
    [
        pytest.param(signal.SIGTERM, "starting Kafka", id="starting", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "ms p99=", id="answering", marks=pytest.mark.long),
    ],
)
def test_a_demo_that_is_interrupted_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, when: str):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [CLIPPER_STREAM, "demo", "--rate", "200", "--out", str(tmp_path / "report")]
    environ = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as demo:
        assert demo.stdout is not None
        assert any(when in line for line in demo.stdout)
        started = descendants(demo.pid)
        demo.send_signal(number)
        assert ("ending: the processes" in demo.stdout.read()) == (number == signal.SIGINT)
        assert demo.wait(timeout=60) == 130
    assert list(temporary.iterdir()) == []
    until("the end of all that it started", lambda: not any(one.runs for one in started), 10.0)


ROOT = Path(__file__).parents[2]
STORY = ["create", "shadow", "step", "promote", "canary", "abort", "rollback", "canary", "promote", "update", "retire"]
"""In this order; between them there may be more steps."""


def run_example(name: str, folder: Path, *options: str) -> tuple[str, dict[str, Any], str]:
    """Standard output of an example, its figures and its page."""
    command = [sys.executable, ROOT / "examples" / name / "run.py", "--rate", "60", *options, "--out", folder]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout, json.loads((folder / f"{name}.json").read_text()), (folder / f"{name}.html").read_text()


@pytest.mark.long
def test_a_model_lives_through_its_stages_and_a_bad_version_ends_by_itself(tmp_path: Path):
    said, figures, page = run_example("lifecycle", tmp_path)
    assert (figures["lost"], figures["feedbacks"]) == (0, figures["queries"])
    commands = iter([line.split()[2] for line in figures["changes"]])
    assert all(step in commands for step in STORY), figures["changes"]
    by_itself = [line for line in figures["changes"] if "by rollout" in line]
    for what in ("step digits:2", "promote digits:2", "abort digits:3", "retire digits:1"):
        assert any(what in line for line in by_itself), by_itself
    assert all(f"digits:{version}" in page for version in "123")
    assert "selection state restored" in said
    assert "nothing is wrong" in said


PROJECTS = {
    "churn": ("churn:1", "churn:2", 0.1),
    "prices": ("prices:1", "prices:2", 50.0),
    "tickets": ("keywords:1", "bayes:1", 0.2),
    "shops": ("north:1", "everywhere:1", 0.1),
}
"""Of each project of a stranger's kind: the version served first, its canary, and by how much that loses less."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PROJECTS)
def test_a_project_leads_in_one_command_from_its_files_to_a_promoted_canary_and_an_evaluation(
    tmp_path: Path, name: str
):
    first, canary, gain = PROJECTS[name]
    command = [sys.executable, ROOT / "examples/projects" / f"{name}.py", "--out", tmp_path]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    figures = json.loads((tmp_path / f"{name}.json").read_text())
    assert (figures["lost"], figures["defaults"], figures["feedbacks"]) == (0, 0, figures["queries"])
    assert figures["changes"][1:] == [f"canary {canary}", f"promote {canary}"]
    before, after = (figures["losses"][f"model {ref}"] for ref in (first, canary))
    assert after["high"] < before["low"], figures["losses"]
    assert after["value"] + gain < before["value"], figures["losses"]


@pytest.mark.long
def test_the_best_candidate_of_a_logged_day_is_as_good_as_predicted(tmp_path: Path):
    said, figures, page = run_example("replay", tmp_path, "--seconds", "15")
    assert figures["inside"]
    assert figures["best"] == "model svm:1"
    assert figures["estimate"]["high"] < figures["logged"]["loss"]
    assert len(figures["candidates"]) == 4
    assert said.count("equal: ") == 2, said  # the log of each day, folded again
    assert "model svm:1" in page
    assert page.count("<svg") == 3


SLOWED = {
    "demo": [CLIPPER_STREAM, "demo"],
    "lifecycle": [sys.executable, ROOT / "examples/lifecycle/run.py"],
    "replay": [sys.executable, ROOT / "examples/replay/run.py", "--seconds", "30"],
}
REASON = re.compile("too slow|the demo needs|stayed with it|99th percentile was|not within|interval that was predicted")


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("name", SLOWED)
def test_on_a_machine_slowed_to_a_quarter_a_story_holds_or_says_why_not(tmp_path: Path, name: str):
    piped: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with (
        subprocess.Popen([*SLOWED[name], "--out", tmp_path], cwd=tmp_path, env=environment(), **piped) as story,
        slowed(story.pid),
    ):
        said, _ = story.communicate()
    assert MEASURED.search(said), said
    reasons = [line for line in said.splitlines() if REASON.search(line)]
    assert (story.returncode, reasons == []) in [(0, True), (1, False)], said
    if name == "demo":  # whatever its story, no query was lost, and no feedback
        assert {*re.findall(r"^FAILED (\w+): ", said, re.MULTILINE)} <= {"story"}, said
