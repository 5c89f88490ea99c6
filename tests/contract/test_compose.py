"""The compose file fits the program, its configuration and the Kafka of the tests; no Docker is needed to say so."""

import re
import subprocess
import tomllib

import pytest
import typer.main
import yaml
from builders.compose import COMPOSE, CONFIG, ROOT, SERVICES, program, settled

from clipper_agents.broker import KAFKA_VERSION
from clipper_agents.cli.main import app
from clipper_agents.settings import load_settings
from clipper_topics.connection import VARIABLES

KAFKA = SERVICES["kafka"]
WORKERS = ["router", "steward", "hosts", "gateway"]
OURS = ["topics", "apply", *WORKERS]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
SYNCS = re.findall(r"uv sync (.*)", DOCKERFILE)


def settings_of(service=None, **environ):
    given = SERVICES[service]["environment"] if service else {}
    environ |= {name: settled(value) for name, value in given.items()}
    return load_settings(ROOT / "deploy/clipper.toml", environ)


def test_services_are_broker_one_shots_and_workers_and_every_variable_has_a_default():
    assert SERVICES.keys() == {"kafka", *OURS}
    assert settled(SERVICES["hosts"]["deploy"]["replicas"]) == "1"
    assert int(settled(SERVICES["router"]["deploy"]["replicas"])) <= settings_of().kafka.partitions
    assert re.findall(r"\$\{\w+(?!\w*:-)[^}]*\}", COMPOSE) == []


@pytest.mark.parametrize("service", OURS)
def test_a_service_runs_the_program_with_its_configuration_and_only_the_variables_of_the_connection(service):
    name, *arguments = program(service)
    assert name == "clipper-stream"
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    context = command.make_context(command.name, arguments)  # raises what the command line would say
    (volume,) = SERVICES[service]["volumes"]
    source, *mounted = settled(volume).split(":")
    assert (ROOT / source).samefile(ROOT / "deploy/clipper.toml")
    assert [str(context.params["config"]), "ro"] == mounted == [CONFIG, "ro"]
    passed = {name: value for name, value in SERVICES[service]["environment"].items() if name.startswith("KAFKA_")}
    assert passed == {name: f"${{{name}:-}}" for name in VARIABLES.values()}
    found = settings_of(service)
    assert not found.host.metrics_port or found.supervisor.metrics_port < found.host.metrics_port, "its hosts count up"


@pytest.mark.parametrize("service", WORKERS)
def test_a_worker_is_healthy_by_its_metrics_which_are_served_where_the_page_says(service):
    page = (ROOT / "docs/how-to/deploy-with-docker-compose.md").read_text()
    found = settings_of(service)
    role = getattr(found, "supervisor" if service == "hosts" else service)
    assert f"http://127.0.0.1:{role.metrics_port}/readyz" in str(SERVICES[service]["healthcheck"]["test"])
    role = getattr(found, service.removesuffix("s"))
    assert role.metrics_address == found.supervisor.metrics_address == "0.0.0.0"
    assert f"http://router:{role.metrics_port}/metrics" in page
    assert f"on port {found.supervisor.metrics_port}" in page
    words = program(service)
    assert service == "hosts" or "$$HOSTNAME" in words[words.index("--instance") + 1], "each container has a name"
    assert service == "hosts" or SERVICES[service]["command"].startswith("sh -c 'exec ")


def test_the_gateway_without_keys_is_reached_from_this_machine_only():
    found = settings_of("gateway").gateway
    assert (found.address, found.insecure, found.keys_file) == ("0.0.0.0", True, None)
    ports = [f"127.0.0.1:{port}:{port}" for port in (found.port, found.grpc_port)]
    assert [settled(port) for port in SERVICES["gateway"]["ports"]] == ports


def test_kafka_is_of_the_tested_version_keeps_its_records_in_a_volume_and_is_reached_where_it_advertises():
    assert KAFKA["image"] == f"apache/kafka:{KAFKA_VERSION}"
    (volume,) = KAFKA["volumes"]
    name, folder = volume.split(":")
    assert name in yaml.safe_load(COMPOSE)["volumes"]
    assert KAFKA["environment"]["KAFKA_LOG_DIRS"] == folder
    advertised = settled(KAFKA["environment"]["KAFKA_ADVERTISED_LISTENERS"]).split(",")
    assert f"INTERNAL://{settings_of().kafka.bootstrap}" in advertised
    assert settings_of(KAFKA_BOOTSTRAP_SERVERS="elsewhere:1").kafka.bootstrap == "elsewhere:1"
    assert [settled(port) for port in KAFKA["ports"]] == ["127.0.0.1:9092:9092"]
    assert "EXTERNAL://localhost:9092" in advertised
    assert "EXTERNAL://:9092" in KAFKA["environment"]["KAFKA_LISTENERS"]


def test_everything_waits_for_what_it_needs():
    after = {"topics": ("kafka", "service_healthy"), "apply": ("topics", "service_completed_successfully")}
    after |= dict.fromkeys(WORKERS, ("apply", "service_completed_successfully"))
    assert {name: SERVICES[name]["depends_on"] for name in OURS} == {
        name: {other: {"condition": condition}} for name, (other, condition) in after.items()
    }
    assert all("healthcheck" in SERVICES[name] for name in ["kafka", *WORKERS])


def test_the_image_runs_a_supported_python_as_nobody_special_and_is_installed_from_the_lock():
    build, final = re.findall("^FROM ([^ \n]+)", DOCKERFILE, flags=re.MULTILINE)
    assert build == final
    assert re.fullmatch(r"python:3\.12\.\d+-slim-\w+", final), "one version, and not the newest of the day"
    last_stage = DOCKERFILE.rpartition("FROM ")[2]
    folder = last_stage.index("install --directory --owner=clipper /var/lib/clipper")
    assert last_stage.index("\nUSER clipper\n") > folder
    assert len(SYNCS) == 2
    assert all("--locked" in sync and "--no-dev" in sync for sync in SYNCS)
    (version,) = re.findall(r'uv_version="([^"]+)"', (ROOT / ".ci/install").read_text())
    assert f"uv=={version}" in DOCKERFILE


def test_the_image_has_every_package_and_extra_that_it_names_and_the_context_what_it_copies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copies = re.findall(r"^COPY (?!--from)(.*)", DOCKERFILE, flags=re.MULTILINE)
    copied = {word for line in copies for word in line.split()[:-1]}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied <= kept
    assert all((ROOT / name).exists() for name in copied)
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {package.partition("/")[0] for package in packages} <= copied
    (default,) = re.findall('^ARG EXTRAS="([^"]*)"', DOCKERFILE, flags=re.MULTILINE)
    assert settled(SERVICES["router"]["build"]["args"]["EXTRAS"]) == default
    assert set(default.split()) <= project["project"]["optional-dependencies"].keys()


@pytest.mark.parametrize(("extras", "options"), [("", ""), ("sklearn onnx", "--extra sklearn --extra onnx")])
def test_the_extras_of_the_image_are_those_of_the_build_argument(extras, options):
    for sync in SYNCS:
        said = subprocess.check_output(["sh", "-c", f"echo {sync}"], env={"EXTRAS": extras}, text=True)
        assert said.split("--no-dev")[1].split("--no-")[0].strip() == options
