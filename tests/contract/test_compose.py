"""Does the compose file fit the program, its configuration and the Kafka that the tests run against?

Docker is not needed: the files are parsed and held against the code.
"""

import re
import subprocess
import tomllib

import pytest
import typer.main
import yaml
from builders.compose import COMPOSE, CONFIG, ROOT, SERVICES, program, settled

from clipper_agents.broker import KAFKA_VERSION
from clipper_agents.cli.main import app
from clipper_agents.settings import Settings, load_settings
from clipper_topics.connection import VARIABLES

OURS = sorted(SERVICES.keys() - {"kafka"})
WORKERS = ["router", "steward", "hosts", "gateway"]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()


def settings(**environ: str) -> Settings:
    return load_settings(ROOT / "deploy/clipper.toml", environ)


def test_services_are_broker_one_shots_workers_and_one_for_all_hosts():
    assert SERVICES.keys() == {"kafka", "topics", "apply", "router", "steward", "hosts", "gateway"}
    assert "deploy" not in SERVICES["hosts"], "a second container would start hosts of the same names"


def test_kafka_is_of_the_version_that_is_tested_embedded():
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"


def test_every_variable_has_a_default():
    assert re.findall(r"\$\{\w+(?!\w*:-)[^}]*\}", COMPOSE) == []


@pytest.mark.parametrize("service", OURS)
def test_the_command_is_one_of_the_program_with_options_that_it_has(service: str):
    name, *arguments = program(service)
    assert name == "clipper-stream"
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    context = command.make_context(command.name, arguments)  # raises what the command line would say
    assert str(context.params["config"]) == CONFIG


@pytest.mark.parametrize("service", OURS)
def test_the_configuration_is_mounted_where_the_command_reads_it(service: str):
    (volume,) = SERVICES[service]["volumes"]
    source, target, mode = settled(volume).split(":")
    assert (ROOT / source).samefile(ROOT / "deploy/clipper.toml")
    assert (target, mode) == (CONFIG, "ro")


@pytest.mark.parametrize("service", OURS)
def test_only_the_connections_variables_reach_the_process(service: str):
    passed = {name: value for name, value in SERVICES[service]["environment"].items() if name.startswith("KAFKA_")}
    assert passed == {name: f"${{{name}:-}}" for name in VARIABLES.values()}


@pytest.mark.parametrize("service", OURS)
def test_the_environment_is_what_the_settings_understand(service: str):
    environ = {name: settled(value) for name, value in SERVICES[service]["environment"].items()}
    found = load_settings(ROOT / "deploy/clipper.toml", environ)
    if service in WORKERS:
        role = getattr(found, "supervisor" if service == "hosts" else service)
        assert f"http://127.0.0.1:{role.metrics_port}/readyz" in str(SERVICES[service]["healthcheck"]["test"])
    assert not found.host.metrics_port or found.supervisor.metrics_port < found.host.metrics_port, "its hosts count up"


@pytest.mark.parametrize("service", WORKERS)
def test_metrics_are_served_where_the_page_says(service: str):
    page = (ROOT / "docs/how-to/deploy-with-docker-compose.md").read_text()
    found = settings(**{name: settled(value) for name, value in SERVICES[service]["environment"].items()})
    role = service.removesuffix("s")
    assert getattr(found, role).metrics_address == "0.0.0.0"
    assert f"http://router:{getattr(found, role).metrics_port}/metrics" in page
    assert (found.supervisor.metrics_address, f"on port {found.supervisor.metrics_port}" in page) == ("0.0.0.0", True)


def test_the_gateway_without_keys_is_reached_from_this_machine_only():
    gateway = SERVICES["gateway"]
    found = settings(**{name: settled(value) for name, value in gateway["environment"].items()}).gateway
    assert (found.address, found.insecure, found.keys_file) == ("0.0.0.0", True, None)
    ports = [f"127.0.0.1:{port}:{port}" for port in (found.port, found.grpc_port)]
    assert [settled(port) for port in gateway["ports"]] == ports


@pytest.mark.parametrize("service", ["router", "steward", "gateway"])
def test_each_container_of_a_worker_has_an_instance_name_of_its_own(service: str):
    words = program(service)
    assert "$$HOSTNAME" in words[words.index("--instance") + 1]
    assert SERVICES[service]["command"].startswith("sh -c 'exec ")


def test_there_are_no_more_routers_than_partitions():
    assert int(settled(SERVICES["router"]["deploy"]["replicas"])) <= settings().kafka.partitions


def test_the_configuration_names_the_listener_that_kafka_advertises_inside():
    listeners = dict(
        listener.split("://")
        for listener in settled(SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]).split(",")
    )
    assert settings().kafka.bootstrap == listeners["INTERNAL"]
    assert settings(KAFKA_BOOTSTRAP_SERVERS="elsewhere:1").kafka.bootstrap == "elsewhere:1"


def test_kafka_is_reached_from_the_host_at_the_port_that_it_advertises():
    kafka = SERVICES["kafka"]
    assert [settled(port) for port in kafka["ports"]] == ["127.0.0.1:9092:9092"]
    assert "EXTERNAL://localhost:9092" in settled(kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"])
    assert "EXTERNAL://:9092" in kafka["environment"]["KAFKA_LISTENERS"]


def test_kafkas_records_are_in_a_volume_that_outlives_the_container():
    (volume,) = SERVICES["kafka"]["volumes"]
    name, folder = volume.split(":")
    assert name in yaml.safe_load(COMPOSE)["volumes"]
    assert SERVICES["kafka"]["environment"]["KAFKA_LOG_DIRS"] == folder


def test_everything_waits_for_what_it_needs():
    assert SERVICES["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    assert SERVICES["apply"]["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}
    for worker in WORKERS:
        assert SERVICES[worker]["depends_on"] == {"apply": {"condition": "service_completed_successfully"}}
    assert all("healthcheck" in SERVICES[name] for name in ["kafka", *WORKERS])


def test_the_image_runs_a_supported_python_as_nobody_special():
    build, final = re.findall("^FROM ([^ \n]+)", DOCKERFILE, flags=re.MULTILINE)
    assert build == final
    assert re.fullmatch(r"python:3\.12\.\d+-slim-\w+", final), "one version, and not the newest of the day"
    last_stage = DOCKERFILE.rpartition("FROM ")[2]
    assert re.search("^USER clipper$", last_stage, flags=re.MULTILINE)
    assert last_stage.index("USER clipper") > last_stage.index("install --directory --owner=clipper /var/lib/clipper")


def test_the_image_is_installed_from_the_lock_with_the_uv_that_the_project_uses():
    syncs = re.findall(r"uv sync (.*)", DOCKERFILE)
    assert syncs
    assert all("--locked" in sync and "--no-dev" in sync for sync in syncs)
    (version,) = re.findall(r'uv_version="([^"]+)"', (ROOT / ".ci/install").read_text())
    assert f"uv=={version}" in DOCKERFILE


def test_the_image_has_every_package_and_extra_that_it_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert f"COPY {package.partition('/')[0]} " in DOCKERFILE
    (default,) = re.findall('^ARG EXTRAS="([^"]*)"', DOCKERFILE, flags=re.MULTILINE)
    assert settled(SERVICES["router"]["build"]["args"]["EXTRAS"]) == default
    assert set(default.split()) <= project["project"]["optional-dependencies"].keys()


@pytest.mark.parametrize(("extras", "options"), [("", ""), ("sklearn onnx", "--extra sklearn --extra onnx")])
def test_the_extras_of_the_image_are_those_of_the_build_argument(extras, options):
    syncs = re.findall(r"uv sync (.*)", DOCKERFILE)
    for sync in syncs:
        done = subprocess.run(
            ["sh", "-c", f"echo {sync}"], env={"EXTRAS": extras}, capture_output=True, text=True, check=True
        )
        assert done.stdout.split("--no-dev")[1].split("--no-")[0].strip() == options
    assert len(syncs) == 2


def test_the_build_context_has_every_file_that_is_copied():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        word
        for line in re.findall(r"^COPY (?!--from)(.*)", DOCKERFILE, flags=re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert copied
    assert set(copied) <= kept
    assert all((ROOT / name).exists() for name in copied)
