"""A Kafka with TLS and SASL or client certificates: our clients get in, nobody else does, and nobody hangs."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.any_client import AnyClient
from e2e.programs import Program, environment, run, until
from oracle import table
from secured_kafka import NAME, PASSWORD, SecuredKafka

from clipper_agents import exits
from clipper_agents.broker.properties import LOOPBACK, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples/clipper.toml"
WAYS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "certificate"]
OFTEN = {"certificate"}
"""Passwords are also those of test_rights.py and test_secrets.py, so `make faults` runs the others."""
PREFIXES = {way: f"via.{way.lower()}" for way in WAYS}
ASK_BY_LIBRARY = """
import asyncio, os, sys
from clipper_stream.client import Client, SyncClient
from clipper_stream.errors import SetupError
from clipper_topics.connection import KafkaConnection

async def ask(kafka):
    async with Client(kafka, prefix=sys.argv[1]) as client:
        answer = await client.predict("sums", [1, 2])
        await client.feedback(answer, label=3)

kafka = KafkaConnection.from_environment(os.environ)
for open_it in (lambda: SyncClient(kafka, prefix=sys.argv[1]).open(), lambda: asyncio.run(ask(kafka))):
    try:
        open_it()
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 3
    else:
        code = 0
sys.exit(code)
"""


def environ_of(kafka: SecuredKafka, way: str) -> dict[str, str]:
    credentials = kafka.with_certificate() if way == "certificate" else kafka.with_password(way)
    return environment(**credentials, CLIPPER_KAFKA_PREFIX=PREFIXES[way])


def by_library(environ: dict[str, str], prefix: str) -> tuple[int, list[str]]:
    """Ask with `SyncClient` and `Client` in a process of its own: its exit code and its lines about errors."""
    command = [sys.executable, "-c", ASK_BY_LIBRARY, prefix]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith(("error: ", "Traceback"))]


@pytest.mark.parametrize("way", [pytest.param(way, marks=() if way in OFTEN else pytest.mark.long) for way in WAYS])
def test_every_client_gets_in(secured, tmp_path, way):
    environ, prefix = environ_of(secured, way), PREFIXES[way]
    with Program("up", "--config", str(EXAMPLE), folder=tmp_path, environ=environ) as up:
        assert up.ready() == {"bootstrap": environ["KAFKA_BOOTSTRAP_SERVERS"]}
        asked = run("predict", "sums", "[1, 2]", "--model", "slow-sum:1", folder=tmp_path, environ=environ)
        assert json.loads(asked.out)["application"] == "sums"
        query = json.loads(run("predict", "sums", "[1, 2]", folder=tmp_path, environ=environ).out)["query_id"]
        assert run("feedback", query, "--label", "3", folder=tmp_path, environ=environ).code == 0
        load = ("--application", "sums", "--rate", "50", "--seconds", "1", "--feedback-delay-ms", "1", "--json", "-")
        report = json.loads(run("loadgen", *load, folder=tmp_path, environ=environ).out)
        assert report["queries"] == report["answered"] == report["feedback_sent"]
        assert by_library(environ, prefix) == (0, [])
        listed = run("topics", "list", folder=tmp_path, environ=environ)
        assert f"{prefix}.queries 4" in listed.out.splitlines()
        applied = run("apply", "--config", str(EXAMPLE), folder=tmp_path, environ=environ)
        assert (applied.code, applied.out) == (0, "nothing changed\n")
        changelog = f"{prefix}.router-selection-changelog"
        with AnyClient(secured.plain) as client:
            until("feedback is learned", lambda: any(row.applied for row in table(client.read(changelog)).values()))
        up.signal(signal.SIGTERM)
        assert up.ended() == 0


MISTAKES = ["wrong password", "wrong authority", "no certificate", "no broker"]
SAID = {
    "wrong password": f"refuses user {NAME!r}",
    "wrong authority": "is not trusted",
    "no certificate": "certificate required",
    "no broker": "no Kafka answers",
}
COMMANDS = {
    "topics list": ("topics", "list"),
    "predict": ("predict", "sums", "[1]"),
    "loadgen": ("loadgen", "--application", "sums", "--seconds", "1"),
    "apply": ("apply", "--config", str(EXAMPLE)),
    "up": ("up", "--config", str(EXAMPLE)),
    "worker router": ("worker", "router", "--instance", "r"),
    "worker host": ("worker", "host", "slow-sum:1", "--instance", "h", "--config", str(EXAMPLE)),
}


def mistaken(kafka: SecuredKafka, mistake: str) -> dict[str, str]:
    """Environment of an application with a mistake in it."""
    right, certified = kafka.with_password("SCRAM-SHA-512"), kafka.with_certificate()
    wrong = {
        "wrong password": {**right, "KAFKA_SASL_PASSWORD": "wrong-horse"},
        "wrong authority": {**right, "KAFKA_SSL_CAFILE": str(kafka.certificates.stranger)},
        "no certificate": {**certified, "KAFKA_SSL_CERTFILE": "", "KAFKA_SSL_KEYFILE": ""},
        "no broker": {**right, "KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{free_port()}"},
    }
    return environment(**wrong[mistake])


# workers wait for a broker that is not there yet: a test of its own
TOLD = [
    pytest.param(c, m, marks=() if c == "predict" or m == "wrong password" else pytest.mark.long)
    for c in COMMANDS
    for m in MISTAKES
    if not (c.startswith("worker") and m == "no broker")
]
"""Each command makes one mistake, and one command each: all pairs take a minute more."""


@pytest.mark.parametrize(("command", "mistake"), TOLD)
def test_who_does_not_get_in_is_told_so_in_one_line(secured, tmp_path, command, mistake):
    environ = mistaken(secured, mistake)
    done = run(*COMMANDS[command], folder=tmp_path, environ=environ)
    said = [line for line in done.err if "connecting to kafka" not in line]  # with which `up` begins
    assert (done.code, done.out, len(said)) == (exits.SETUP, "", 1), done.err
    assert SAID[mistake] in said[0]
    assert environ["KAFKA_BOOTSTRAP_SERVERS"] in said[0]
    assert PASSWORD not in "".join(done.err)
    assert "wrong-horse" not in "".join(done.err)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_library_says_in_one_line_why_it_does_not_get_in(secured, mistake):
    code, lines = by_library(mistaken(secured, mistake), "clipper")
    assert (code, len(lines)) == (exits.SETUP, 2)
    assert all(SAID[mistake] in line for line in lines)


@pytest.mark.parametrize("command", ["worker router", "worker host"])
def test_a_worker_whose_broker_is_not_there_yet_says_so_and_ends_when_told(secured, tmp_path, command):
    environ = mistaken(secured, "no broker")
    with Program(*COMMANDS[command], folder=tmp_path, environ=environ) as worker:
        until("it says that it waits", lambda: worker.log.count("waiting for kafka") >= 2)
        assert "Traceback" not in worker.log
        worker.signal(signal.SIGTERM)
        assert worker.ended() == exits.OK


@pytest.fixture
def brief(secured: SecuredKafka) -> Iterator[dict[str, str]]:
    """Environment of an application whose password is asked for again every two seconds, and right again at the end."""
    yield environment(
        **{**secured.with_password("SCRAM-SHA-256"), "KAFKA_BOOTSTRAP_SERVERS": secured.brief},
        CLIPPER_KAFKA_PREFIX="brief",
    )
    secured.set_password("SCRAM-SHA-256", NAME, PASSWORD)


def test_a_wrong_password_is_logged_and_the_worker_recovers_when_it_is_right(secured, brief, tmp_path):
    created = run("topics", "create", folder=tmp_path, environ=brief)
    assert created.code == 0, created.err
    with Program("worker", "router", "--instance", "r", folder=tmp_path, environ=brief) as router:
        router.ready()
        secured.set_password("SCRAM-SHA-256", NAME, "other-horse")
        until("the refusal is in the log", lambda: "SaslAuthenticationFailed" in router.log)
        secured.set_password("SCRAM-SHA-256", NAME, PASSWORD)
        with AnyClient(secured.plain) as client, client.reading("brief.predictions") as predictions:
            client.send_json("brief.queries", {"query_id": "after", "application": "nobody", "input": [1]})
            predictions.until("a query is answered again", bool)
        router.signal(signal.SIGTERM)
        assert router.ended() == exits.OK
    assert PASSWORD not in router.log
    assert "other-horse" not in router.log
