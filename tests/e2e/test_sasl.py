"""A Kafka with TLS and a password: every client of ours gets in, and nobody tells the password."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.any_client import AnyClient
from e2e.programs import Program, environment, run, until
from oracle import table

from clipper_agents import exits
from clipper_agents.broker import EmbeddedBroker
from clipper_agents.broker.properties import LOOPBACK, free_port
from clipper_agents.broker.runtime import find_runtime

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples/clipper.toml"
NAME, PASSWORD = "ada", "correct-horse"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A key store for the broker, and the certificate for the clients."""
    keytool = str(find_runtime().java.with_name("keytool"))
    store, certificate = folder / "broker.p12", folder / "broker.pem"
    common = ("-alias", "kafka", "-keystore", str(store), "-storepass", PASSWORD)
    made = ("-genkeypair", "-keyalg", "EC", "-dname", "CN=kafka", "-ext", f"san=ip:{LOOPBACK}", "-validity", "2")
    subprocess.run([keytool, *made, *common], check=True, capture_output=True)
    subprocess.run(
        [keytool, "-exportcert", "-rfc", "-file", str(certificate), *common], check=True, capture_output=True
    )
    return store, certificate


def guarded(port: int, guarded_port: int, controller_port: int, store: Path) -> dict[str, Any]:
    """Broker settings: the plain listener that every embedded broker has, and one with TLS and a password."""
    listeners = f"PLAINTEXT://{LOOPBACK}:{port},CLIENTS://{LOOPBACK}:{guarded_port}"
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    return {
        "listeners": f"{listeners},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,CLIENTS:SASL_SSL",
        "ssl.keystore.location": store,
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.password": PASSWORD,
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.clients.plain.sasl.jaas.config": f'{login} user_{NAME}="{PASSWORD}";',
    }


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of an application of that Kafka."""
    store, certificate = make_certificate(tmp_path_factory.mktemp("certificate"))
    port, guarded_port, controller_port = free_port(), free_port(), free_port()
    properties = guarded(port, guarded_port, controller_port, store)
    with EmbeddedBroker(port=port, extra_properties=properties, ports=lambda: controller_port):
        yield environment(
            KAFKA_BOOTSTRAP_SERVERS=f"{LOOPBACK}:{guarded_port}",
            KAFKA_SECURITY_PROTOCOL="SASL_SSL",
            KAFKA_SASL_USERNAME=NAME,
            KAFKA_SASL_PASSWORD=PASSWORD,
            KAFKA_SSL_CAFILE=str(certificate),
        )


def test_every_client_gets_in_and_nobody_tells_the_password(environ, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environ = {**environ, "TMPDIR": str(temporary)}
    with Program("up", "--config", str(EXAMPLE), folder=tmp_path, environ=environ) as up:
        assert up.ready() == {"bootstrap": environ["KAFKA_BOOTSTRAP_SERVERS"]}
        asked = run("predict", "sums", "[1, 2]", "--model", "slow-sum:1", folder=tmp_path, environ=environ)
        assert json.loads(asked.out)["application"] == "sums"
        load = ("--application", "sums", "--rate", "50", "--seconds", "1", "--feedback-delay-ms", "1", "--json", "-")
        report = json.loads(run("loadgen", *load, folder=tmp_path, environ=environ).out)
        assert report["queries"] == report["answered"] == report["feedback_sent"]
        until("feedback is learned", lambda: any(row.applied for row in _table(environ).values()))
        shown = [up.log, *(process.command for process in up.children())]
        shown += [path.read_text() for path in temporary.rglob("*.json")]
        up.signal(signal.SIGTERM)
        assert up.ended() == 0
    assert len(shown) > 4, "the workers have settings files and command lines"
    assert all(PASSWORD not in text for text in shown)


def _table(environ: dict[str, str]) -> dict[Any, Any]:
    settings = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": NAME,
        "sasl.password": PASSWORD,
        "ssl.ca.location": environ["KAFKA_SSL_CAFILE"],
    }
    with AnyClient(environ["KAFKA_BOOTSTRAP_SERVERS"], settings) as client:
        return table(client.read("clipper.router-selection-changelog"))


@pytest.mark.parametrize("wrong", ["KAFKA_SASL_PASSWORD", "KAFKA_SECURITY_PROTOCOL", "KAFKA_SSL_CAFILE"])
def test_who_does_not_get_in_is_told_so_in_one_line(environ, tmp_path, wrong):
    changed = {
        "KAFKA_SASL_PASSWORD": {"KAFKA_SASL_PASSWORD": "wrong-horse"},
        "KAFKA_SECURITY_PROTOCOL": {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SSL_CAFILE": ""},
        "KAFKA_SSL_CAFILE": {"KAFKA_SSL_CAFILE": ""},
    }[wrong]
    done = run("topics", "list", folder=tmp_path, environ=environ | changed)
    assert (done.code, done.out, len(done.err)) == (exits.SETUP, "", 1)
    assert environ["KAFKA_BOOTSTRAP_SERVERS"] in done.err[0]
    assert PASSWORD not in done.err[0]
    assert "wrong-horse" not in done.err[0]
