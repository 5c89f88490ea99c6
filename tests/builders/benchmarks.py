"""Modules of `benchmarks/`, which is no package, and smoke runs of its programs."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
ON_KAFKA = (
    "console_view", "deploying", "feedback", "latency", "memory", "recovery", "replay_reading", "replicas", "scale",
    "soak", "stragglers", "ten_versions",
)  # fmt: skip
"""Those that run systems; `throughput` and `http_servers` are apart: some of their systems may not be installed."""
DOUBTS = ("failed", "missing", "duplicates", "wrong", "note")


def benchmark_module(name: str) -> ModuleType:
    """A module by its name there, as `rig.worlds`."""
    if str(BENCHMARKS) not in sys.path:
        sys.path.append(str(BENCHMARKS))  # last: some benchmarks are called as packages are
    return importlib.import_module(name)


def ran(name: str, *options: object) -> str:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    return done.stdout


def result(name: str, folder: Path, *options: object) -> Any:
    ran(name, "--json", folder / "result.json", *options)
    return json.loads((folder / "result.json").read_text())


def check_figures(found: Any) -> None:
    """Every run did what it was to do, and every row of the summary has a figure: a timing is no assertion here."""
    assert found["runs"]
    for run in found["runs"]:
        assert not any(run.get(doubt) for doubt in DOUBTS), json.dumps(run, indent=1)
    for measures in _rows(found["summary"]):
        assert any(cell["median"] is not None for cell in measures), json.dumps(found["summary"], indent=1)


def _rows(summary: dict[str, Any]) -> list[list[Any]]:
    """Cells of each row of a summary, or of several summaries by name."""
    if any(isinstance(cell, dict) and "median" in cell for cell in summary.values()):
        return [list(summary.values())]
    return [row for part in summary.values() if isinstance(part, dict) for row in _rows(part)]
