"""The demo as a user starts it, shortened: with so few queries policies cannot be judged, but nothing may be lost."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e
pytest.importorskip("skops")
pytest.importorskip("matplotlib")

PROGRAM = (sys.executable, "-m", "clipper_agents.cli.main", "demo")
ENDS_WITHIN_S = 600


@pytest.mark.timeout(ENDS_WITHIN_S + 30)
def test_every_query_is_answered_once_and_every_truth_counted_once(tmp_path: Path):
    out = tmp_path / "report"
    command = (
        *PROGRAM,
        "--queries",
        "1500",
        "--rate",
        "400",
        "--json",
        str(tmp_path / "result.json"),
        "--out",
        str(out),
    )
    environment = {**os.environ, "MPLCONFIGDIR": str(tmp_path / "matplotlib")}  # as on a machine without a font cache
    done = subprocess.run(command, capture_output=True, text=True, timeout=ENDS_WITHIN_S, check=False, env=environment)
    log = (out / "processes.log").read_text()[-3000:]
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log}"
    assert [line for line in done.stderr.splitlines() if not line.startswith("downloading ")] == []
    assert re.findall(r"^console: http://127\.0\.0\.1:\d+/console$", done.stdout, re.MULTILINE)

    result = json.loads((tmp_path / "result.json").read_text())
    assert result["queries"] == result["answered"] == result["distinct_answered"] == 1500
    assert result["feedback"]["sent"] == 1500
    assert result["feedback"]["applied"] + result["feedback"].get("unlearned", 0) == 1500
    assert result["feedback"]["duplicates"] == 0
    assert result["committed"] is True
    assert result["verified"]["equal"] is True
    assert result["verified"]["feedbacks"] == result["feedback"]["sent"]
    assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["p90"] <= result["latency_ms"]["p99"]
    assert result["throughput_per_s"] > 0
    assert 0 < result["cache"]["hits"] < result["cache"]["lookups"]
    assert set(result["policies"]) == {"exp3", "exp4"}
    assert len(result["single_models"]) == len(result["batch"]) == 5
    assert all(batch["mean"] >= 1 and batch["limit_final"] >= 1 for batch in result["batch"].values())
    for errors in (*result["policies"].values(), *result["single_models"].values()):
        for phase in ("before", "failed", "restored"):
            low, high = errors[f"interval_{phase}"]
            assert low <= errors[f"error_{phase}"] <= high
    broken = result["single_models"][result["broken_model"]]
    assert broken["error_failed"] > 0.5 > broken["error_before"]

    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert {path.name for path in out.glob("*.png")} == {"errors.png", "weights.png", "batches.png", "latency.png"}


@pytest.mark.timeout(ENDS_WITHIN_S + 30)
@pytest.mark.parametrize(
    ("number", "when"),
    [
        pytest.param(signal.SIGTERM, "starting Kafka", id="starting"),
        pytest.param(signal.SIGINT, "ms p99=", id="answering", marks=pytest.mark.long),
    ],
)
def test_a_demo_that_is_interrupted_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, when: str):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = (*PROGRAM, "--rate", "200", "--out", str(tmp_path / "report"))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as demo:
        assert demo.stdout is not None
        assert any(when in line for line in demo.stdout)
        demo.send_signal(number)
        demo.stdout.read()
        assert demo.wait(timeout=60) == 130
    assert list(temporary.iterdir()) == []
    assert processes_that_name(str(temporary)) == []


def processes_that_name(folder: str, within_s: float = 10.0) -> list[str]:
    """Command lines that still name the folder after so many seconds (on Linux; elsewhere none is found)."""
    end_s = time.monotonic() + within_s
    while found := [line for line in command_lines() if folder in line]:
        if time.monotonic() > end_s:
            break
        time.sleep(0.1)
    return found


def command_lines() -> list[str]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            lines.append(path.read_bytes().decode("utf-8", "replace"))
    return lines
