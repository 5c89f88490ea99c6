"""Kafka's ACLs: with the rights of docs/how-to/secure-kafka.md everything works, with one less it is said."""

import json
import re
import signal
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.any_client import AnyClient
from e2e.console_forms import Browser
from e2e.gateways import client_of
from e2e.programs import Program, environment, run, until
from oracle import table
from secured_kafka import SecuredKafka

from clipper_agents import exits

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/clipper.toml"
PAGE = ROOT / "docs/how-to/secure-kafka.md"
MECHANISM = "SCRAM-SHA-512"
SERVED = "slow-sum.1"
"""Model and version of the host; its rights are of this version alone."""
Rights = dict[tuple[str, str], list[str]]


def rights_of_the_page() -> dict[str, Rights]:
    """Operations by role, kind and name of a resource."""
    found: dict[str, Rights] = defaultdict(dict)
    page = PAGE.read_text().replace("<model>.<version>", SERVED)
    line = re.compile(
        r"^\*\*([\w -]+)\*\*$|^- (topic|group|cluster|transactional-id) `([^`]+)`: ([\w, ]+)$", re.MULTILINE
    )
    role = ""
    for heading, kind, name, operations in line.findall(page):
        role = heading.replace(" ", "-") or role
        if kind:
            found[role][kind, name] = operations.split(", ")
    return found


RIGHTS = rights_of_the_page()


def password_of(role: str) -> str:
    return f"password of {role}"


def as_role(kafka: SecuredKafka, role: str) -> dict[str, str]:
    entered = kafka.with_password(MECHANISM, role, password_of(role))
    return environment(**entered, CLIPPER_MODELS_ALLOWED_MODULES="clipper_agents.examples.models:")


@pytest.fixture(scope="module")
def kafka(secured: SecuredKafka) -> Iterator[SecuredKafka]:
    """With a user a role, who has the rights of the page and no other."""
    for role, rights in RIGHTS.items():
        secured.set_password(MECHANISM, role, password_of(role))
        secured.allow(role, rights)
    return secured


def test_the_page_has_every_role():
    workers = {"router", "host", "steward", "gateway"}
    assert set(RIGHTS) == workers | {"operator", "application", "loadgen", "dead-letter-reader"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rights")


@pytest.fixture(scope="module")
def deployed(kafka: SecuredKafka, folder: Path) -> Iterator[dict[str, Program]]:
    """Topics and manifests by the operator, a router, a host and a steward, each under a name of its own."""
    compared = "default_output = -1\naudit_ratio = 1.0\nkeep_best = 2"
    audited = EXAMPLE.read_text().replace("default_output = -1", compared)
    config = folder / "clipper.toml"
    config.write_text(audited)
    for command in ("topics create", "apply"):
        done = run(*command.split(), "--config", str(config), folder=folder, environ=as_role(kafka, "operator"))
        assert done.code == 0, done.err
    router, host, steward = (as_role(kafka, role) for role in ("router", "host", "steward"))
    with (
        Program("worker", "router", "--instance", "r", folder=folder / "router", environ=router) as first,
        Program("worker", "host", "slow-sum:1", "--instance", "h", folder=folder / "host", environ=host) as second,
        Program("worker", "steward", folder=folder / "steward", environ=steward) as third,
    ):
        first.ready()
        second.ready()
        third.ready()
        yield {"router": first, "host": second}
        for worker in (first, second, third):
            worker.signal(signal.SIGTERM)
            assert worker.ended() == 0, worker.log
            assert "was destroyed" not in worker.log, "it leaves tasks behind"


def test_the_documented_rights_suffice_to_answer_learn_and_keep_bad_records(kafka, deployed, folder):
    application = as_role(kafka, "application")
    asked = run("predict", "sums", "[1, 2]", "--model", "slow-sum:1", folder=folder, environ=application)
    assert asked.code == 0, asked.err
    assert json.loads(asked.out)["models"][0]["model"] == "slow-sum"
    load = ("--application", "sums", "--rate", "50", "--seconds", "1", "--feedback-delay-ms", "1", "--json", "-")
    report = run("loadgen", *load, folder=folder, environ=as_role(kafka, "loadgen"))
    assert report.code == 0, report.err
    counts = json.loads(report.out)
    assert counts["queries"] == counts["answered"] == counts["feedback_sent"]
    answer = json.loads(run("predict", "sums", "[1, 2]", folder=folder, environ=application).out)
    told = run("feedback", answer["query_id"], "--label", "3", folder=folder, environ=application)
    assert told.code == 0, told.err
    with AnyClient(kafka.plain) as everything:
        until(
            "feedback is learned",
            lambda: any(row.applied for row in table(everything.read("clipper.router-selection-changelog")).values()),
        )
        assert everything.read("clipper.audits"), "the router may write what was asked for the log only"
        until("the steward publishes what it compares", lambda: everything.read("clipper.comparisons"))
    with AnyClient(kafka.passwords, librdkafka(kafka, "application")) as anybody:
        anybody.send("clipper.queries", b"no record")
    with AnyClient(kafka.passwords, librdkafka(kafka, "dead-letter-reader")) as reader:
        with reader.reading("clipper.dead-letters") as letters:
            found = letters.until("the bad record is a dead letter", bool)
        assert found[0].value == b"no record"
    with AnyClient(kafka.passwords, librdkafka(kafka, "application")) as anybody:
        anybody.send_json("clipper.feedback", {"query_id": "never", "loss": 0, "ack": True})
        with anybody.reading("clipper.feedback-acks") as acks:
            acks.until("the feedback is acknowledged", bool)


def test_a_gateway_with_the_documented_rights_answers_and_acts(kafka, deployed, folder):
    ports = ("--set", "gateway.port=0", "--set", "gateway.grpc_port=0")
    with Program("gateway", *ports, folder=folder / "gateway", environ=as_role(kafka, "gateway")) as gateway:
        url = gateway.ready()["http"]

        inputs = [{"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]
        body, content = json.dumps({"inputs": inputs}).encode(), {"content-type": "application/json"}
        request = urllib.request.Request(f"{url}/v2/models/sums/infer", body, content)

        def output() -> float | None:
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    return float(json.load(response)["outputs"][0]["data"][0])
            except urllib.error.HTTPError:  # it serves before it has seen Kafka
                return None

        until("an answer", lambda: output() == 3.0, 60.0)
        with client_of(url) as client:
            anybody = Browser(client, "")
            assert "retire sum:1" in anybody.do("retire", application="sums", model="sum:1")
            assert "rollback" in anybody.do("rollback", application="sums")
        gateway.signal(signal.SIGTERM)
        assert gateway.ended() == 0, gateway.log
        assert "was destroyed" not in gateway.log, "it leaves tasks behind"


def test_who_watches_and_may_not_read_a_topic_is_told_and_sees_the_rest(kafka, deployed, folder):
    with Program("watch", "--json", folder=folder / "watch", environ=as_role(kafka, "loadgen")) as watching:

        def told():
            assert watching.code is None, watching.log
            looks = map(json.loads, watching.lines)
            return [look for look in looks if any(one.startswith("topic") for one in look["reasons"])]

        look = until("what may not be read", told)[0]
        watching.signal(signal.SIGINT)
        assert watching.ended() == 0, watching.log
    assert look["applications"]["sums"]["models"] == ["sum:1", "slow-sum:1"]
    refused = "topic clipper.feedback: this user may not read it, so figures are missing: give it the right to Read"
    assert [one for one in look["reasons"] if not one.startswith("application sums")] == [refused]


def test_a_host_with_the_rights_of_its_version_may_not_read_requests_to_another(kafka, deployed, folder):
    done = run("worker", "host", "sum:1", "--instance", "other", folder=folder, environ=as_role(kafka, "host"))
    assert done.code == exits.SETUP, done.err
    assert any(name in done.err[-1] for name in ("clipper.requests.sum.1", "clipper.host.sum.1")), "whichever is first"


def librdkafka(kafka: SecuredKafka, role: str) -> dict[str, str]:
    return {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": MECHANISM,
        "sasl.username": role,
        "sasl.password": password_of(role),
        "ssl.ca.location": str(kafka.certificates.authority),
    }


LESS = "less"
"""Prefix of a second deployment, in which one right is missing at a time."""
COMMANDS = {
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


@pytest.fixture(scope="module")
def less(kafka: SecuredKafka, folder: Path) -> None:
    """A deployment of the second prefix, with a query that nobody has answered."""
    environ = environment(KAFKA_BOOTSTRAP_SERVERS=kafka.plain, CLIPPER_KAFKA_PREFIX=LESS)
    assert run("apply", "--config", str(EXAMPLE), folder=folder, environ=environ).code == 0
    with AnyClient(kafka.plain) as client:
        client.send_json(f"{LESS}.queries", {"query_id": "q", "application": "sums", "input": [1, 2]})


FIRST_OF_ROLE = {role: one for one in reversed(MISSING) for role in one[:1]}
"""One a role; the others take a minute more."""
ONE_LESS = [pytest.param(*one, marks=() if one in FIRST_OF_ROLE.values() else pytest.mark.long) for one in MISSING]


@pytest.mark.parametrize(("role", "kind", "name", "operation"), ONE_LESS)
def test_a_right_less_is_refused_with_a_line_that_says_whose_and_which(
    kafka, less, folder, role, kind, name, operation
):
    user = f"{role} without {operation} of {name}"
    assert operation in RIGHTS[role][kind, name], "the page gives this right, so the test takes it away"
    prefix = f"{LESS}.new." if operation == "Create" else f"{LESS}."
    rights = {
        (of_kind, named.replace("clipper.", prefix)): [
            each for each in operations if (of_kind, named, each) != (kind, name, operation)
        ]
        for (of_kind, named), operations in RIGHTS[role].items()
    }
    kafka.set_password(MECHANISM, user, "a password")
    kafka.allow(user, rights)
    environ = environment(
        **kafka.with_password(MECHANISM, user, "a password"),
        CLIPPER_KAFKA_PREFIX=prefix.rstrip("."),
        CLIPPER_LOG_LEVEL="error",
        CLIPPER_MODELS_ALLOWED_MODULES="clipper_agents.examples.models:",
    )
    # each worker its own name: under the name of the one before it would get that one's partitions back (KIP-345)
    instance = ("--instance", f"{kind}-{operation}-{name}".rstrip(".*")) if role in {"router", "host"} else ()
    done = run(*COMMANDS[role], *instance, folder=folder, environ=environ)
    assert done.code == exits.SETUP, done.err
    last = done.err[-1]
    assert last.startswith("error: ")
    assert not any(line.startswith("Traceback") for line in done.err)
    assert name.replace("clipper.", prefix).rstrip("*") in last
