"""The demo as a user starts it, shortened: with so few queries policies cannot be judged, but nothing may be lost."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from e2e.programs import CLIPPER_STREAM, descendants, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(630)]
pytest.importorskip("skops")
pytest.importorskip("matplotlib")

QUERIES = 600


def test_every_query_is_answered_once_and_every_truth_counted_once(tmp_path: Path):
    out = tmp_path / "report"
    options = ("--queries", str(QUERIES), "--rate", "400", "--json", str(tmp_path / "result.json"), "--out", str(out))
    environ = {**os.environ, "MPLCONFIGDIR": str(tmp_path / "matplotlib")}  # as on a machine without a font cache
    command = [CLIPPER_STREAM, "demo", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environ)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{(out / 'processes.log').read_text()[-3000:]}"
    assert [line for line in done.stderr.splitlines() if not line.startswith("downloading ")] == []
    assert re.findall(r"^console: http://127\.0\.0\.1:\d+/console$", done.stdout, re.MULTILINE)

    result = json.loads((tmp_path / "result.json").read_text())
    assert result["queries"] == result["answered"] == result["distinct_answered"] == QUERIES
    feedback, verified = result["feedback"], result["verified"]
    assert feedback["sent"] == feedback["applied"] + feedback.get("unlearned", 0) == verified["feedbacks"] == QUERIES
    assert (feedback["duplicates"], result["committed"], verified["equal"]) == (0, True, True)
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

    assert (out / "report.html").read_text().count("data:image/png;base64,") == 4
    assert {path.name for path in out.glob("*.png")} == {"errors.png", "weights.png", "batches.png", "latency.png"}


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
        demo.stdout.read()
        assert demo.wait(timeout=60) == 130
    assert list(temporary.iterdir()) == []
    until("the end of all that it started", lambda: not any(one.runs for one in started), 10.0)
