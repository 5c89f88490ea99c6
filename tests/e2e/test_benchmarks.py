import json
from collections.abc import Iterable
from typing import Any

import pytest
from builders.benchmarks import DOUBTS, ON_KAFKA, check_figures, result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SAME_WORK = {f"{name}-same-work" for name in ("confluent", "bytewax", "quix", "faust", "colocated")}
RIVALS_IN_JAVA = ("kafka-streams-net", "flink-net")
SYSTEMS = {
    *(f"{name}-pass-through" for name in ("confluent", "aiokafka", "aiokafka-send", "aiokafka-msgpack", "bytewax")),
    *(f"{name}-pass-through" for name in ("quix", "faust", "faststream", "mlserver")),
    *SAME_WORK,
    *("bare-router-json", "colocated-json", "separate-msgpack", "vote-json", "late-json"),
    *RIVALS_IN_JAVA,
    "net-json",
}
SERVERS = {
    *("mlserver", "bentoml", "ray-serve", "fastapi", "bare", "gateway", "gateway-packed", "colocated", "separate")
}
ABSENT = {"bytewax", "quix", "faststream", "mlserver", "bentoml", "ray", "kafka", "flink"}
"""Rivals whose packages are not among the development dependencies: the benchmarks install them, not the tests."""


def installed(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs of systems that are on this machine; only rivals may be missing."""
    runs = list(runs)
    missing = [run["system"] for run in runs if "not installed" in run.get("note", "")]
    assert {system.split("-")[0] for system in missing} <= ABSENT, missing
    return [run for run in runs if run["system"] not in missing]


@pytest.mark.parametrize("name", ON_KAFKA)
def test_a_benchmark_of_systems_runs_and_every_query_is_answered(name, kafka, tmp_path):
    check_figures(result(name, tmp_path, "--no-pin", "--bootstrap", kafka.bootstrap))


def test_latency_by_the_load_has_a_page_with_a_row_a_step_and_a_picture(kafka, tmp_path):
    found = result(
        "latency_steps", tmp_path, "--no-pin", "--bootstrap", kafka.bootstrap, "--page", tmp_path / "page.md"
    )
    assert len(found["runs"]) == 4 * 2
    rows = [line for line in (tmp_path / "page.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 4 * 2
    assert " - " not in "".join(rows)
    assert (tmp_path / "page.svg").exists()


def test_the_benchmark_of_disks_runs(tmp_path):
    check_figures(result("disk", tmp_path))


def test_every_rival_answers_every_query_and_does_the_same_work_once(kafka, tmp_path):
    runs = result("throughput", tmp_path, "--no-pin", "--no-install", "--bootstrap", kafka.bootstrap)["runs"]
    assert {run["system"] for run in runs} == SYSTEMS
    for run in installed(runs):
        assert run["complete"], json.dumps(run, indent=1)
        if run["system"] in SAME_WORK:
            faults = {fault: run[fault] for fault in ("missing", "duplicates", "wrong", "changed", "unlearned")}
            assert not any(faults.values()), (run["system"], faults)
            assert run["hit_ratio"] > 0.1, run["system"]


def test_rivals_in_java_answer_every_query_at_half_of_their_saturation(kafka, tmp_path):
    options = ("--no-pin", "--no-install", "--bootstrap", kafka.bootstrap, "--systems", *RIVALS_IN_JAVA)
    found = installed(result("latency", tmp_path, *options)["runs"])
    assert not any(run.get(doubt) for run in found for doubt in DOUBTS), json.dumps(found, indent=1)
    for system in {run["system"] for run in found}:
        assert [run["load"] for run in found if run["system"] == system] == ["saturation", "half of saturation"]


def test_a_model_server_answers_every_request_at_each_load(kafka, tmp_path):
    runs = result("http_servers", tmp_path, "--no-pin", "--no-install", "--bootstrap", kafka.bootstrap)["runs"]
    assert {run["system"] for run in runs} == SERVERS
    found = installed(runs)
    for system in {run["system"] for run in found}:
        assert [run["load"] for run in found if run["system"] == system] == ["200/s", "saturation"]
    assert not any(run.get(doubt) for run in found for doubt in DOUBTS), json.dumps(found, indent=1)


def test_the_benchmark_of_careless_clients_and_overload_of_the_gateway_runs(kafka, tmp_path):
    found = result("gateway_limits", tmp_path, "--no-pin", "--bootstrap", kafka.bootstrap)
    check_figures(found)
    systems = ["before", "alone", "idle", "slow", "vanish", "greedy", "after", "overload"]
    assert [run["system"] for run in found["runs"]] == systems
