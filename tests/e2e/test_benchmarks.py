"""Every benchmark and every rival runs at its smoke size, and finds figures: a timing is no assertion here."""

import json
import subprocess
import sys

import pytest
from builders.benchmarks import BENCHMARKS

NOT_OURS = {"bytewax", "quix", "faststream", "mlserver"}
"""Rivals whose packages are not among the development dependencies: `benchmarks/throughput.py` installs them."""
SYSTEMS = (
    "confluent",
    "aiokafka",
    "aiokafka-send",
    "aiokafka-msgpack",
    "bytewax",
    "quix",
    "faust",
    "faststream",
    "mlserver",
    "bare-router-json",
    "colocated-json",
    "cached-90-json",
    "separate-msgpack",
    "packed-msgpack",
)
ON_KAFKA = (
    "deploying",
    "feedback",
    "latency",
    "memory",
    "recovery",
    "replay_reading",
    "replicas",
    "scale",
    "soak",
    "stragglers",
)
WITHOUT_KAFKA = ("batching", "batching_quality", "delayed_batching", "estimating")
PAGES = ("coverage", "drift", "learning_candidates", "regret", "rollouts")
NO_BENCHMARKS = {"all", "figures", "models"}
DOUBTS = ("failed", "missing", "duplicates", "wrong", "note")


def ran(name, *options):
    """Standard output of a benchmark at its smoke size."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    return done.stdout


def result(name, folder, *options):
    ran(name, "--json", folder / "result.json", *options)
    return json.loads((folder / "result.json").read_text())


def test_every_benchmark_is_run_by_a_test():
    scripts = {path.stem for path in BENCHMARKS.glob("*.py")}
    assert scripts == {"throughput", *ON_KAFKA, *WITHOUT_KAFKA, *PAGES} | NO_BENCHMARKS


def check_figures(found):
    assert found["runs"]
    for run in found["runs"]:
        assert not any(run.get(doubt) for doubt in DOUBTS), run
    for measures in rows_of(found["summary"]):
        assert any(cell["median"] is not None for cell in measures), found["summary"]


def rows_of(summary):
    """Cells of each row of a summary, or of several summaries by name."""
    if any(isinstance(cell, dict) and "median" in cell for cell in summary.values()):
        return [list(summary.values())]
    return [row for part in summary.values() if isinstance(part, dict) for row in rows_of(part)]


@pytest.mark.e2e
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ON_KAFKA)
def test_a_benchmark_of_systems_runs_and_every_query_is_answered(name, tmp_path):
    check_figures(result(name, tmp_path, "--no-pin"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", WITHOUT_KAFKA)
def test_a_benchmark_without_kafka_runs_and_has_figures(name, tmp_path):
    check_figures(result(name, tmp_path))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PAGES)
def test_a_simulated_benchmark_writes_its_page(name, tmp_path):
    printed = ran(name, "--page", tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert rows
    assert all(cell.strip() not in ("", "nan") for row in rows for cell in row.strip("| ").split(" | ")[1:])
    assert all(line in page for line in printed.splitlines())


@pytest.fixture(scope="module")
def throughput(tmp_path_factory):
    """Runs of the throughput benchmark by system."""
    found = result("throughput", tmp_path_factory.mktemp("throughput"), "--no-pin", "--no-install")
    return {run["system"]: run for run in found["runs"]}


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_the_throughput_benchmark_runs_every_rival(throughput):
    assert tuple(throughput) == SYSTEMS


@pytest.mark.e2e
@pytest.mark.timeout(900)
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_answers_every_query_with_the_right_label(system, throughput):
    run = throughput[system]
    if system in NOT_OURS and "not installed" in run["note"]:
        pytest.skip(run["note"])
    assert run["complete"], run
