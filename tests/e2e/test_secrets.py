"""A password is nowhere but in the environment: not in a log at any level, a file, a page, a help text or a repr."""

import base64
import json
import signal
import urllib.request
from pathlib import Path

import pytest
from e2e.programs import Program, environment, run
from secured_kafka import NAME, PASSWORD

from clipper_agents.broker.properties import free_port
from clipper_agents.settings import load_settings
from clipper_agents.streaming.app import make_app
from clipper_agents.supervisor.deployment import Deployment
from clipper_stream.client import Client, SyncClient

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples/clipper.toml"
MECHANISM = "PLAIN"
"""The one that sends the password itself."""
TRACES = (PASSWORD, base64.b64encode(f"\0{NAME}\0{PASSWORD}".encode()).decode(), PASSWORD.encode().hex())
COMMANDS = ["", "demo", "up", "predict", "feedback", "apply", "broker", "loadgen", "topics", "topics create"]
COMMANDS += ["topics list", "worker", "worker router", "worker host"]


@pytest.fixture
def environ(secured, tmp_path):
    (tmp_path / "temporary").mkdir()
    return environment(
        **secured.with_password(MECHANISM),
        CLIPPER_KAFKA_PREFIX="secret",
        CLIPPER_LOG_LEVEL="debug",
        TMPDIR=str(tmp_path / "temporary"),
    )


def files_below(folder: Path) -> dict[str, str]:
    """What they contain; a file that goes away meanwhile is none."""
    found = {}
    for path in folder.rglob("*"):
        try:
            found[f"file {path}"] = path.read_bytes().decode("latin-1") if path.is_file() else ""
        except FileNotFoundError:
            continue
    return found


def page(port: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def reprs(environ: dict[str, str], folder: Path) -> dict[str, str]:
    """Of every object that holds a connection."""
    settings = load_settings(EXAMPLE, environ)
    kafka = settings.connection(environ)
    app = make_app("secret", kafka, folder / "app", "instance")
    held = {
        "settings": settings,
        "connection": kafka,
        "router settings": settings.router_settings("r", kafka),
        "host settings": settings.host_settings("h", settings.models[1], kafka),
        "client": Client(kafka),
        "blocking client": SyncClient(kafka),
        "deployment": Deployment(settings, environ),
        "app": app,
        "credentials": app.conf.broker_credentials,
        "configuration": app.conf,
    }
    return {f"repr of {name}": f"{value!r} {value}" for name, value in held.items()}


def test_nobody_tells_the_password(environ, tmp_path):
    shown = {}
    routers, hosts = str(free_port()), str(free_port())
    ports = ("--set", f"router.metrics_port={routers}", "--set", f"host.metrics_port={hosts}")
    with Program("up", "--config", str(EXAMPLE), *ports, folder=tmp_path / "up", environ=environ) as up:
        up.ready()
        asked = run("predict", "sums", "[1, 2]", folder=tmp_path, environ=environ)
        query = json.loads(asked.out)["query_id"]
        told = run("feedback", query, "--label", "3", folder=tmp_path, environ=environ)
        load = ("--application", "sums", "--rate", "20", "--seconds", "1", "--json", "-")
        loaded = run("loadgen", *load, folder=tmp_path, environ=environ)
        listed = run("topics", "list", folder=tmp_path, environ=environ)
        for done in (asked, told, loaded, listed):
            assert done.code == 0, done.err
            shown[f"output {len(shown)}"] = done.out + "\n".join(done.err)
        shown["metrics of the router"], shown["metrics of the host"] = page(routers), page(hosts)
        shown |= {f"command line of {process.pid}": process.command for process in up.children()}
        shown |= files_below(tmp_path / "temporary")
        up.signal(signal.SIGTERM)
        assert up.ended() == 0
    shown |= files_below(tmp_path / "up")
    log = up.log
    assert "level=debug logger=aiokafka.conn" in log, "the library that logs requests has been heard"
    refused = run("predict", "sums", "[1]", folder=tmp_path, environ=environ | {"KAFKA_SASL_USERNAME": "nobody"})
    shown["a refusal"] = "\n".join(refused.err)
    for command in COMMANDS:
        shown[f"help of {command}"] = run(*command.split(), "--help", folder=tmp_path, environ=environ).out
    shown |= reprs(environ, tmp_path)
    assert any(name.endswith(".json") for name in shown), "the workers have settings files"
    assert [name for name, text in shown.items() if any(trace in text for trace in TRACES)] == []
