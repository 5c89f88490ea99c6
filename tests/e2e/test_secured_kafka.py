import asyncio
import base64
import json
import re
import signal
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2e.any_client import AnyClient
from e2e.console_forms import Browser
from e2e.gateways import client_of
from e2e.programs import Program, Shell, environment, reserved_port, run, run_here, until
from e2e.secured_kafka import NAME, PASSWORD, SecuredKafka
from oracle import table

from clipper_agents import exits
from clipper_agents.settings import load_settings
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.supervisor.deployment import Deployment
from clipper_stream.client import Client, SyncClient
from clipper_stream.errors import SetupError
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.rights import rights_of

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/clipper.toml"
LOAD = ("loadgen", "--application", "sums", "--rate", "50", "--seconds", "1", "--feedback-delay-ms", "1", "--json", "-")


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    with SecuredKafka(tmp_path_factory.mktemp("secured")).running() as kafka:
        yield kafka


# --- who gets in ------------------------------------------------------------------------------------------------------
PASSES = (PASSWORD, base64.b64encode(f"\0{NAME}\0{PASSWORD}".encode()).decode(), PASSWORD.encode().hex())
"""Forms of the password; the mechanism PLAIN sends the password itself."""
GROUPS = ["", "demo", "up", "predict", "feedback", "apply", "broker", "loadgen", "topics", "topics create"]
GROUPS += ["topics list", "worker", "worker router", "worker host"]


def by_library(environ: Mapping[str, str], prefix: str) -> list[SetupError | None]:
    """Ask by `SyncClient` and `Client`; why each does not get in, None for one that does."""
    kafka, found = KafkaConnection.from_environment(environ), list[SetupError | None]()

    def blocking() -> None:
        with SyncClient(kafka, prefix=prefix):
            pass

    async def ask() -> None:
        async with Client(kafka, prefix=prefix) as client:
            await client.feedback(await client.predict("sums", [1, 2]), label=3)

    for work in (blocking, lambda: asyncio.run(ask())):
        found.append(None)
        try:
            work()
        except SetupError as error:
            found[-1] = error
    return found


def contents(folder: Path) -> dict[str, str]:
    """What files below a folder contain; one that goes away meanwhile is none."""
    found = {}
    for path in filter(Path.is_file, folder.rglob("*")):
        with suppress(FileNotFoundError):
            found[f"file {path}"] = path.read_bytes().decode("latin-1")
    return found


def reprs(environ: dict[str, str], folder: Path) -> dict[str, str]:
    """Of every object that holds a connection."""
    settings = load_settings(EXAMPLE, environ)
    kafka = settings.connection(environ)
    app = ClipperApp("secret", kafka, folder / "app", "instance")
    held = [
        settings, kafka, settings.worker(settings.router, "r", kafka), settings.worker(settings.host, "h", kafka),
        Client(kafka), SyncClient(kafka), Deployment(settings, environ), app, app.conf.broker_credentials, app.conf,
    ]  # fmt: skip
    return {f"repr of {type(each).__name__}": f"{each!r} {each}" for each in held}


LONG = [pytest.param(f"SCRAM-SHA-{size}", marks=pytest.mark.long) for size in (256, 512)]


@pytest.mark.parametrize("way", ["PLAIN", pytest.param("certificate", marks=pytest.mark.slow), *LONG])
def test_every_client_gets_in_and_nobody_tells_the_password(kafka, tmp_path, way):
    prefix, temporary, folder = f"via.{way.lower()}", tmp_path / "temporary", tmp_path / "up"
    temporary.mkdir()
    credentials = kafka.with_certificate() if way == "certificate" else kafka.with_password(way)
    told = {"CLIPPER_KAFKA_PREFIX": prefix, "CLIPPER_LOG_LEVEL": "debug", "TMPDIR": str(temporary)}
    environ, shown = environment(**credentials, **told), dict[str, str]()

    def typed(*arguments: str) -> str:
        found = run_here(*arguments, folder=tmp_path, environ=environ)
        assert found.code == exits.OK, found.err
        shown[f"output of {arguments}"] = found.out + "\n".join(found.err)
        return found.out

    with Program("up", "--config", str(EXAMPLE), folder=folder, environ=environ) as up:
        assert up.ready() == {"bootstrap": environ["KAFKA_BOOTSTRAP_SERVERS"]}
        answer = json.loads(typed("predict", "sums", "[1, 2]", "--model", "slow-sum:1"))
        assert answer["application"] == "sums"
        typed("feedback", json.loads(typed("predict", "sums", "[1, 2]"))["query_id"], "--label", "3")
        report = json.loads(typed(*LOAD))
        assert report["queries"] == report["answered"] == report["feedback_sent"]
        assert by_library(environ, prefix) == [None, None]
        assert f"{prefix}.queries 4" in typed("topics", "list").splitlines()
        assert typed("apply", "--config", str(EXAMPLE)) == "nothing changed\n"
        with AnyClient(kafka.plain) as client:
            changelog = f"{prefix}.router-selection-changelog"
            until("feedback is learned", lambda: any(row.applied for row in table(client.read(changelog)).values()))
        (targets,) = folder.rglob("metrics-targets.json")
        for one in json.loads(targets.read_text()):
            url = f"http://{one['targets'][0]}/metrics"
            shown[f"metrics of {one['labels']}"] = httpx.get(url, trust_env=False).text
        shown |= {f"command line of {process.pid}": process.command for process in up.children()}
        shown |= contents(temporary)
        up.signal(signal.SIGTERM)
        assert up.ended() == 0
    shown |= contents(folder)
    assert "level=debug logger=aiokafka.conn" in up.log, "the library that logs requests has been heard"
    refused = run_here("predict", "sums", "[1]", folder=tmp_path, environ=environ | {"KAFKA_SASL_USERNAME": "nobody"})
    shown["a refusal"] = "\n".join(refused.err)
    for command in GROUPS:
        shown[f"help of {command}"] = run_here(*command.split(), "--help", folder=tmp_path, environ=environ).out
    shown |= reprs(environ, tmp_path)
    assert any(name.endswith(".json") for name in shown), "the workers have settings files"
    assert [name for name, text in shown.items() if any(one in text for one in PASSES)] == []


MISTAKES = {
    "wrong password": f"refuses user {NAME!r}",
    "wrong authority": "is not trusted",
    "no certificate": "certificate required",
    "no broker": "no Kafka answers",
}
"""What is said of each."""
COMMANDS = {
    "topics list": ("topics", "list"),
    "predict": ("predict", "sums", "[1]"),
    "loadgen": ("loadgen", "--application", "sums", "--seconds", "1"),
    "apply": ("apply", "--config", str(EXAMPLE)),
    "up": ("up", "--config", str(EXAMPLE)),
    "worker router": ("worker", "router", "--instance", "r"),
    "worker host": ("worker", "host", "slow-sum:1", "--instance", "h", "--config", str(EXAMPLE)),
}


def mistaken(kafka: SecuredKafka, mistake: str, nobody: int) -> dict[str, str]:
    """Environment of an application with a mistake in it."""
    right, certified = kafka.with_password("SCRAM-SHA-512"), kafka.with_certificate()
    wrong = {
        "wrong password": {**right, "KAFKA_SASL_PASSWORD": "wrong-horse"},
        "wrong authority": {**right, "KAFKA_SSL_CAFILE": str(kafka.certificates["stranger"])},
        "no certificate": {**certified, "KAFKA_SSL_CERTFILE": "", "KAFKA_SSL_KEYFILE": ""},
        "no broker": {**right, "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{nobody}"},
    }
    return environment(**wrong[mistake])


TOLD = [
    pytest.param(command, mistake, marks=() if "predict" in command or "password" in mistake else pytest.mark.long)
    for command in COMMANDS
    for mistake in MISTAKES
    if not (command.startswith("worker") and mistake == "no broker")  # these wait: test_stops
]
"""Each command makes one mistake, and one command each: all pairs take a minute more."""


@pytest.mark.parametrize(("command", "mistake"), TOLD)
def test_who_does_not_get_in_is_told_so_in_one_line(kafka, tmp_path, command, mistake):
    with reserved_port() as nobody:
        environ = mistaken(kafka, mistake, nobody)
        is_process = command.startswith(("up", "worker"))
        found = (run if is_process else run_here)(*COMMANDS[command], folder=tmp_path, environ=environ)
    said = [line for line in found.err if "connecting to kafka" not in line]  # with which `up` begins
    assert (found.code, found.out, len(said)) == (exits.SETUP, "", 1), found.err
    assert MISTAKES[mistake] in said[0]
    assert environ["KAFKA_BOOTSTRAP_SERVERS"] in said[0]
    assert "horse" not in "".join(found.err), "a password"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_library_says_in_one_line_why_it_does_not_get_in(kafka, mistake):
    with reserved_port() as nobody:
        found = by_library(mistaken(kafka, mistake, nobody), "clipper")
    assert [MISTAKES[mistake] in str(error) and "\n" not in str(error) for error in found] == [True, True], found


def test_a_wrong_password_is_logged_and_the_worker_recovers_when_it_is_right(kafka, tmp_path):
    """At a listener that asks for the password again every two seconds."""
    right = {**kafka.with_password("SCRAM-SHA-256"), "KAFKA_BOOTSTRAP_SERVERS": kafka.brief}
    brief = environment(**right, CLIPPER_KAFKA_PREFIX="brief")
    Shell(tmp_path, brief)("topics create")
    with Program("worker", "router", "--instance", "r", folder=tmp_path, environ=brief) as router:
        router.ready()
        try:
            kafka.set_password("SCRAM-SHA-256", NAME, "other-horse")
            until("the refusal is in the log", lambda: "SaslAuthenticationFailed" in router.log)
        finally:
            kafka.set_password("SCRAM-SHA-256", NAME, PASSWORD)
        with AnyClient(kafka.plain) as client, client.reading("brief.predictions") as predictions:
            client.send_json("brief.queries", {"query_id": "after", "application": "nobody", "input": [1]})
            predictions.until("a query is answered again", bool)
        router.signal(signal.SIGTERM)
        assert router.ended() == exits.OK
    assert "horse" not in router.log, "a password"


# --- who may do what --------------------------------------------------------------------------------------------------
MECHANISM = "SCRAM-SHA-512"
SERVED = "slow-sum.1"
"""Model and version of the host; its rights are of this version alone."""
Rights = dict[tuple[str, str], list[str]]


def rights_of_roles() -> dict[str, Rights]:
    """Operations by role, kind and name of a resource, where one that ends with `*` is a prefix."""
    found: dict[str, Rights] = defaultdict(dict)
    for one in rights_of(Catalogue(), [SERVED]):
        found[one.role][one.kind, one.name + "*" * one.is_prefix] = [*one.operations]
    return found


RIGHTS = rights_of_roles()
WORKERS = {"router": "router --instance r", "host": "host slow-sum:1 --instance h", "steward": "steward"}


def as_role(kafka: SecuredKafka, role: str, **settings: str) -> dict[str, str]:
    entered = kafka.with_password(MECHANISM, role, f"password of {role}")
    return environment(**entered, CLIPPER_MODELS_ALLOWED_MODULES="clipper_agents.examples.models:", **settings)


def talking(kafka: SecuredKafka, role: str) -> AnyClient:
    return AnyClient(kafka.passwords, kafka.for_librdkafka(MECHANISM, role, f"password of {role}"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rights")


@pytest.fixture(scope="module")
def roles(kafka: SecuredKafka, folder: Path) -> Iterator[SecuredKafka]:
    """A user a role, who has the rights of the page and no other: one has made topics, three are running workers."""
    asking = {"gateway", "operator", "application", "loadgen", "dead-letter-reader"}
    assert set(RIGHTS) == {*WORKERS, *asking}
    for role, rights in RIGHTS.items():
        kafka.allow(role, rights)
        kafka.set_password(MECHANISM, role, f"password of {role}")
    config = folder / "clipper.toml"
    compared = "default_output = -1\naudit_ratio = 1.0\nkeep_best = 2"
    config.write_text(EXAMPLE.read_text().replace("default_output = -1", compared))
    for command in ("topics create", "apply"):
        Shell(folder, as_role(kafka, "operator"))(*command.split(), "--config", config)
    with ExitStack() as stack:
        how = {role: {"folder": folder / role, "environ": as_role(kafka, role)} for role in WORKERS}
        started = (Program("worker", *line.split(), **how[role]) for role, line in WORKERS.items())
        workers = [*map(stack.enter_context, started)]
        for worker in workers:
            worker.ready()
        yield kafka
        for worker in workers:
            ends_in_order(worker)


def ends_in_order(program: Program) -> None:
    program.signal(signal.SIGTERM)
    assert program.ended() == exits.OK, program.log
    assert "was destroyed" not in program.log, "it leaves tasks behind"


def test_the_documented_rights_suffice_to_answer_learn_and_keep_bad_records(roles, folder):
    def typed(role: str, *arguments: str) -> Any:
        return json.loads("".join(Shell(folder, as_role(roles, role))(*arguments)) or "null")

    one_model = ("predict", "sums", "[1, 2]", "--model", "slow-sum:1")
    (asked,) = until("the model is in time", lambda: typed("application", *one_model)["models"])
    assert asked["model"] == "slow-sum"
    counts = typed("loadgen", *LOAD)
    assert counts["queries"] == counts["answered"] == counts["feedback_sent"]
    answer = typed("application", "predict", "sums", "[1, 2]")
    typed("application", "feedback", answer["query_id"], "--label", "3")
    with AnyClient(roles.plain) as everything:
        changelog = "clipper.router-selection-changelog"
        until("feedback is learned", lambda: any(row.applied for row in table(everything.read(changelog)).values()))
        assert everything.read("clipper.audits"), "the router may write what was asked for the log only"
        until("the steward publishes what it compares", lambda: everything.read("clipper.comparisons"))
    with talking(roles, "application") as anybody, talking(roles, "dead-letter-reader") as reader:
        anybody.send("clipper.queries", b"no record")
        with reader.reading("clipper.dead-letters") as letters:
            found = letters.until("the bad record is a dead letter", bool)
        assert found[0].value == b"no record"
        anybody.send_json("clipper.feedback", {"query_id": "never", "loss": 0, "ack": True})
        with anybody.reading("clipper.feedback-acks") as acks:
            acks.until("the feedback is acknowledged", bool)


def test_a_gateway_with_the_documented_rights_answers_and_acts(roles, folder):
    ports = ("--set", "gateway.port=0", "--set", "gateway.grpc_port=0")
    with Program("gateway", *ports, folder=folder / "gateway", environ=as_role(roles, "gateway")) as gateway:
        with client_of(gateway.ready()["http"]) as client:
            inputs = [{"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]

            def answer() -> httpx.Response:
                return client.post("/v2/models/sums/infer", json={"inputs": inputs})

            until("it has seen Kafka", lambda: answer().is_success, 60.0)
            assert answer().json()["outputs"][0]["data"] == [3.0]
            anybody = Browser(client, "")
            assert "retire sum:1" in anybody.do("retire", application="sums", model="sum:1")
            assert "rollback" in anybody.do("rollback", application="sums")
        ends_in_order(gateway)


def test_who_watches_and_may_not_read_a_topic_is_told_and_sees_the_rest(roles, folder):
    with Program("status", "--watch", "--json", folder=folder / "watch", environ=as_role(roles, "loadgen")) as watching:
        told = until("what may not be read", lambda: [line for line in watching.lines if '"topic ' in line])
        look = json.loads(told[0])
        watching.signal(signal.SIGINT)
        assert watching.ended() == 0, watching.log
    assert look["applications"]["sums"]["models"] == ["sum:1", "slow-sum:1"]
    wrong = [one for one in look["reasons"] if not one.startswith("application sums")]
    assert [one.partition(":")[0] for one in wrong] == [
        "brokers and groups may not be read by this user, so what they would say is missing", "topic clipper.feedback"
    ], wrong  # fmt: skip
    assert "the right to Read" in wrong[1]


def test_a_host_with_the_rights_of_its_version_may_not_read_requests_to_another(roles, folder):
    found = run("worker", "host", "sum:1", "--instance", "other", folder=folder, environ=as_role(roles, "host"))
    assert found.code == exits.SETUP, found.err
    assert re.search(r"clipper\.(requests|host)\.sum\.1", found.err[-1]), "whichever is first"


LESS = "less"
"""Prefix of a second deployment, in which one right is missing at a time."""
ACTS = {
    "operator": ("apply", "--config", str(EXAMPLE)),
    "application": ("predict", "sums", "[1, 2]"),
    "loadgen": ("loadgen", "--application", "sums", "--seconds", "1"),
    "router": ("worker", "router"),
    "host": ("worker", "host", "slow-sum:1"),
}
MISSING = [
    ("operator", "topic", "clipper.*", "Create"),
    ("operator", "topic", "clipper.*", "DescribeConfigs"),
    ("operator", "topic", "clipper.control", "Read"),
    ("operator", "transactional-id", "clipper.control-writer", "Write"),
    ("application", "topic", "clipper.queries", "Write"),
    ("application", "topic", "clipper.predictions", "Read"),
    ("loadgen", "topic", "clipper.queries", "Write"),
    ("loadgen", "topic", "clipper.control", "Read"),
    ("router", "topic", "clipper.queries", "Read"),
    ("router", "topic", "clipper.predictions", "Write"),
    ("router", "topic", "clipper.control", "Read"),
    ("router", "transactional-id", "clipper.router-selection-changelog-*", "Write"),
    ("router", "group", "clipper.router", "Read"),
    ("host", "topic", f"clipper.requests.{SERVED}", "Read"),
    ("host", "group", f"clipper.host.{SERVED}", "Read"),
    ("host", "topic", "clipper.hosts", "Write"),
    ("router", "topic", "clipper.hosts", "Read"),
]
FIRST_OF_ROLE = {role: one for one in reversed(MISSING) for role in one[:1]}
"""One a role; the others take a minute more."""
ONE_LESS = [pytest.param(*one, marks=() if one in FIRST_OF_ROLE.values() else pytest.mark.long) for one in MISSING]


@pytest.fixture(scope="module")
def less(kafka: SecuredKafka, folder: Path) -> None:
    """A deployment of the second prefix, with a query that nobody has answered."""
    environ = environment(KAFKA_BOOTSTRAP_SERVERS=kafka.plain, CLIPPER_KAFKA_PREFIX=LESS)
    Shell(folder, environ)("apply", "--config", EXAMPLE)
    with AnyClient(kafka.plain) as client:
        client.send_json(f"{LESS}.queries", {"query_id": "q", "application": "sums", "input": [1, 2]})


@pytest.mark.parametrize(("role", "kind", "name", "operation"), ONE_LESS)
def test_a_right_less_is_refused_with_a_line_that_says_whose_and_which(
    kafka, less, folder, role, kind, name, operation
):
    assert operation in RIGHTS[role][kind, name], "the page gives this right, so the test takes it away"
    user, prefix = f"{role} without {operation} of {name}", f"{LESS}.new." if operation == "Create" else f"{LESS}."
    rights = {
        of: [each for each in given if (*of, each) != (kind, name, operation)] for of, given in RIGHTS[role].items()
    }
    moved = {(of_kind, named.replace("clipper.", prefix)): given for (of_kind, named), given in rights.items()}
    kafka.allow(user, moved)  # before the password: who is let in has them
    kafka.set_password(MECHANISM, user, f"password of {user}")
    environ = as_role(kafka, user, CLIPPER_KAFKA_PREFIX=prefix.rstrip("."), CLIPPER_LOG_LEVEL="error")
    # each worker its own name: under the name of the one before it would get that one's partitions back (KIP-345)
    is_worker = role in WORKERS
    instance = ("--instance", f"{kind}-{operation}-{name}".rstrip(".*")) if is_worker else ()
    found = (run if is_worker else run_here)(*ACTS[role], *instance, folder=folder, environ=environ)
    assert found.code == exits.SETUP, found.err
    assert found.err[-1].startswith("error: ")
    assert name.replace("clipper.", prefix).rstrip("*") in found.err[-1]
    assert not any(line.startswith("Traceback") for line in found.err)
