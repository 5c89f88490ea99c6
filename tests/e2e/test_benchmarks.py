"""Every benchmark and every rival that needs a Kafka runs at its smoke size, and finds figures."""

import json

import pytest
from builders.benchmarks import DOUBTS, ON_KAFKA, check_figures, result

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NOT_OURS = ("bytewax", "quix", "faststream", "mlserver")
"""Rivals whose packages are not among the development dependencies: `benchmarks/throughput.py` installs them."""
SAME_WORK = (
    "confluent-same-work",
    "bytewax-same-work",
    "quix-same-work",
    "faust-same-work",
    "colocated-same-work",
)
SYSTEMS = (
    "confluent-pass-through",
    "aiokafka-pass-through",
    "aiokafka-send-pass-through",
    "aiokafka-msgpack-pass-through",
    "bytewax-pass-through",
    "quix-pass-through",
    "faust-pass-through",
    "faststream-pass-through",
    "mlserver-pass-through",
    *SAME_WORK,
    "bare-router-json",
    "colocated-json",
    "separate-msgpack",
    "vote-json",
    "late-json",
)


@pytest.mark.parametrize("name", ON_KAFKA)
def test_a_benchmark_of_systems_runs_and_every_query_is_answered(name, kafka, tmp_path):
    check_figures(result(name, tmp_path, "--no-pin", "--bootstrap", kafka.bootstrap))


@pytest.fixture(scope="module")
def throughput(kafka, tmp_path_factory):
    """Runs of the throughput benchmark by system."""
    options = ("--no-pin", "--no-install", "--bootstrap", kafka.bootstrap)
    found = result("throughput", tmp_path_factory.mktemp("throughput"), *options)
    return {run["system"]: run for run in found["runs"]}


def test_the_throughput_benchmark_runs_every_rival(throughput):
    assert tuple(throughput) == SYSTEMS


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_answers_every_query_with_the_right_label(system, throughput):
    check_complete(throughput[system])


def check_complete(run):
    if run["system"].startswith(NOT_OURS) and "not installed" in run["note"]:
        pytest.skip(run["note"])
    assert run["complete"], json.dumps(run, indent=1)


@pytest.mark.parametrize("system", SAME_WORK)
def test_the_same_work_is_done_once_with_hits_repeats_and_learned_weights(system, throughput):
    run = throughput[system]
    check_complete(run)
    assert {run[fault] for fault in ("missing", "duplicates", "wrong", "changed", "unlearned")} == {0}
    assert run["hit_ratio"] > 0.1


@pytest.fixture(scope="module")
def http_servers(kafka, tmp_path_factory):
    """Runs of the benchmark of model servers by system."""
    options = ("--no-pin", "--no-install", "--bootstrap", kafka.bootstrap)
    runs = result("http_servers", tmp_path_factory.mktemp("http_servers"), *options)["runs"]
    return {system: [run for run in runs if run["system"] == system] for system in SERVERS}


SERVERS = (
    "mlserver",
    "bentoml",
    "ray-serve",
    "fastapi",
    "bare",
    "gateway",
    "gateway-packed",
    "colocated",
    "separate",
)


@pytest.mark.parametrize("system", SERVERS)
def test_a_model_server_answers_every_request_at_each_load(system, http_servers):
    runs = http_servers[system]
    if "not installed" in runs[0].get("note", ""):
        pytest.skip(runs[0]["note"])
    assert [run["load"] for run in runs] == ["200/s", "saturation"]
    assert not any(run.get(doubt) for run in runs for doubt in DOUBTS), json.dumps(runs, indent=1)


def test_the_benchmark_of_careless_clients_and_overload_of_the_gateway_runs(kafka, tmp_path):
    found = result("gateway_limits", tmp_path, "--no-pin", "--bootstrap", kafka.bootstrap)
    check_figures(found)
    systems = ["before", "alone", "idle", "slow", "vanish", "after", "overload"]
    assert [run["system"] for run in found["runs"]] == systems
