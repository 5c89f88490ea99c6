"""The example of replay, as a reader runs it: what was predicted for the best candidate is what comes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.programs import environment

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(420)]
pytest.importorskip("skops")
pytest.importorskip("pyarrow")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "replay" / "run.py"


def test_the_best_candidate_of_a_logged_day_is_as_good_as_predicted(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, EXAMPLE, "--seconds", "15", "--rate", "60", "--out", tmp_path],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    figures = json.loads((tmp_path / "replay.json").read_text())
    assert figures["inside"]
    assert figures["best"] == "model svm:1"
    assert figures["estimate"]["high"] < figures["logged"]["loss"]
    assert len(figures["candidates"]) == 4
    assert done.stdout.count("equal: ") == 2, done.stdout  # the log of each day, folded again
    page = (tmp_path / "replay.html").read_text()
    assert "model svm:1" in page
    assert page.count("<svg") >= 4
