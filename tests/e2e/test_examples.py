"""The examples as a reader runs them: every step of a model's life happens, and replay predicts what then comes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from e2e.programs import environment

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(500)]

ROOT = Path(__file__).parents[2]
STORY = ["create", "shadow", "step", "promote", "canary", "abort", "rollback", "canary", "promote", "update", "retire"]
"""In this order; between them there may be more steps."""


def run_example(name: str, folder: Path, *options: str) -> tuple[str, dict[str, Any], str]:
    """Standard output of an example, its figures and its page."""
    command = [sys.executable, ROOT / "examples" / name / "run.py", "--rate", "60", *options, "--out", folder]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout, json.loads((folder / f"{name}.json").read_text()), (folder / f"{name}.html").read_text()


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


def test_the_best_candidate_of_a_logged_day_is_as_good_as_predicted(tmp_path: Path):
    for extra in ("skops", "pyarrow", "matplotlib"):
        pytest.importorskip(extra)
    said, figures, page = run_example("replay", tmp_path, "--seconds", "15")
    assert figures["inside"]
    assert figures["best"] == "model svm:1"
    assert figures["estimate"]["high"] < figures["logged"]["loss"]
    assert len(figures["candidates"]) == 4
    assert said.count("equal: ") == 2, said  # the log of each day, folded again
    assert "model svm:1" in page
    assert page.count("<svg") >= 4
