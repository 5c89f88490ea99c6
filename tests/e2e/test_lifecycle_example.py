"""The example of a model's life, as a reader runs it: every step happens, and no query is lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.programs import environment

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(500)]

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "lifecycle" / "run.py"
RATE = 60
STORY = ["create", "shadow", "step", "promote", "canary", "abort", "rollback", "canary", "promote", "update", "retire"]
"""In this order; between them there may be more steps."""


def test_a_model_lives_through_its_stages_and_a_bad_version_ends_by_itself(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, EXAMPLE, "--rate", str(RATE), "--out", tmp_path],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=480, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    figures = json.loads((tmp_path / "lifecycle.json").read_text())
    assert (figures["lost"], figures["feedbacks"]) == (0, figures["queries"])
    commands = iter([line.split()[2] for line in figures["changes"]])
    assert all(step in commands for step in STORY), figures["changes"]
    by_itself = [line for line in figures["changes"] if "by rollout" in line]
    for what in ("step digits:2", "promote digits:2", "abort digits:3", "retire digits:1"):
        assert any(what in line for line in by_itself), by_itself
    page = (tmp_path / "lifecycle.html").read_text()
    assert all(f"digits:{version}" in page for version in "123")
    assert "selection state restored" in done.stdout
    assert "nothing is wrong" in done.stdout
