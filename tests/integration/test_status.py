"""Does `clipper-stream status` say what runs, and what is wrong, from Kafka alone?"""

import asyncio
import json
import signal
import socket
import time
from contextlib import aclosing
from pathlib import Path

import pytest
from e2e.any_client import AnyClient
from e2e.programs import Program, environment_of, until

from clipper_agents.status.watch import Snapshot, snapshots
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

CONFIGURATION = """
[[application]]
name = "slow"
models = ["slow-sum:1"]
policy = { name = "single" }
objective_ms = 4000
default_output = -1

[[model]]
name = "slow-sum"
uri = "clipper_agents.examples.models:slow"
"""


def test_a_deployment_is_seen_while_it_comes_up_runs_and_loses_its_host(
    kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path, shell
):
    (tmp_path / "clipper.toml").write_text(CONFIGURATION)
    environ = environment_of(kafka, catalogue)

    def status(*options: str):
        return shell.run("status", *options)

    def worker(*arguments: str) -> Program:
        settings = ("--config", "clipper.toml", "--set", f"router.data_dir={tmp_path / 'data'}")
        return Program("worker", *arguments, *settings, folder=tmp_path, environ=environ)

    shell("apply")
    empty = status()
    assert empty.code == 1
    assert "no router runs" in empty.out
    assert "model slow-sum:1 has 0 of 1 hosts" in empty.out

    AnyClient(kafka.bootstrap).send(catalogue.queries, b"no query")
    with worker("router", "--instance", "router-a") as router, worker("host", "slow-sum:1", "--instance", "h") as host:
        router.ready()
        host.ready()
        until("nothing is wrong", lambda: status().code == 0)
        seen = json.loads(status("--json").out)
        assert seen["reasons"] == []
        routers, hosts = seen["groups"]
        assert [member["instance"] for member in routers["members"]] == ["router-a"]
        assert routers["members"][0]["partitions"][catalogue.queries] == [0, 1]
        assert hosts["members"][0]["instance"] == "h"
        assert until("the dead letter", lambda: json.loads(status("--json").out)["dead_letters"]) == 1
        assert seen["brokers"][0]["reachable"] is True

        def batch_limit() -> float | None:
            (version,) = json.loads(status("--json").out)["applications"]["slow"]["versions"]
            return version["batch_limit"]

        AnyClient(kafka.bootstrap).send_json(catalogue.queries, {"application": "slow", "input": [1, 2]})
        assert until("a batch", batch_limit) >= 1, "the host reports where its metrics are"
        assert status("--set", "kafka.prefix=nobody").code == 1

        host.signal(signal.SIGTERM)
        assert host.ended() == 0
        until("the host is missed", lambda: "model slow-sum:1 has 0 of 1 hosts" in status().out)


def test_a_malformed_control_record_is_a_problem_until_it_is_discarded(
    kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path, shell
):
    (tmp_path / "clipper.toml").write_text(CONFIGURATION)
    shell("apply")
    client = AnyClient(kafka.bootstrap)
    for key in (b"application/slow", b"model/\xff:1", b"nonsense"):
        client.send(catalogue.control, b"{", key=key)

    def unreadable():
        return [one for one in json.loads(shell.run("status", "--json").out)["reasons"] if "cannot be read" in one]

    told = unreadable()
    assert len(told) == 3
    for reason in told:
        shell(*reason.partition("`clipper-stream ")[2].rstrip("`").split())
    assert unreadable() == []
    (application,) = shell.json("application", "list")
    assert (application["name"], application["revision"]) == ("slow", 2)
    again = shell.run("topics", "discard", "0")
    assert (again.code, len(again.err)) == (1, 1)


FAILING = """
[[application]]
name = "fails"
models = ["fails:1"]
policy = { name = "single" }
objective_ms = 20000
default_output = -1

[[model]]
name = "fails"
uri = "clipper_agents.examples.models:flaky"
parameters = { failing_ratio = 1.0 }
"""


def test_a_model_that_raises_is_told_and_its_traceback_is_in_the_log(
    kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path, shell
):
    (tmp_path / "clipper.toml").write_text(FAILING)
    settings = ("--config", "clipper.toml", "--set", f"router.data_dir={tmp_path / 'data'}")
    client = AnyClient(kafka.bootstrap)
    with Program("up", *settings, folder=tmp_path, environ=environment_of(kafka, catalogue)) as up:
        up.ready()
        for _ in range(3):
            client.send_json(catalogue.queries, {"application": "fails", "input": [1, 2]})
        told = "application fails: model fails:1 failed 3 of 3 queries"
        seen = until("the failures are told", lambda: (found := shell.run("status")).out.count(told) and found)
        assert seen.code == 1
        assert "ValueError: row 0 is one that this model cannot stand: look at the log of its host" in seen.out
        until("a traceback", lambda: up.log.count("Traceback (most recent call last)") == 1)
        assert 'msg="model fails model=fails:1' in up.log


def test_without_a_broker_the_exit_code_is_that_of_a_wrong_setup(shell):
    with socket.socket() as reserved:  # bound and not listening: nobody answers there
        reserved.bind(("127.0.0.1", 0))
        done = shell.run("status", "--bootstrap", f"127.0.0.1:{reserved.getsockname()[1]}")
    assert done.code == 3
    assert "no Kafka answers at" in done.err[-1]


MANY = "".join(
    f"""
[[application]]
name = "app-{number}"
models = ["m-{number}:1"]
policy = {{ name = "exp3" }}
default_output = -1

[[model]]
name = "m-{number}"
uri = "clipper_agents.examples.models:slow"
"""
    for number in range(200)
)


async def first_snapshot(kafka: KafkaConnection, catalogue: Catalogue) -> Snapshot:
    async with aclosing(snapshots(kafka, catalogue, None, lambda: False)) as found:
        return await anext(found)


def test_two_hundred_applications_are_seen_with_little_work(
    kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path, shell
):
    (tmp_path / "clipper.toml").write_text(MANY)
    shell("apply")
    shell.run("status")  # what is imported first is not the deployment's
    began_s = time.process_time()
    seen = shell.run("status")
    assert time.process_time() - began_s < 1.5
    assert seen.out.count(": exp3, objective 100 ms, revision 1") == 200
    assert seen.out.count("has 0 of 1 hosts") == 200
    began_s = time.process_time()
    assert len(asyncio.run(first_snapshot(kafka, catalogue)).applications) == 200
    assert time.process_time() - began_s < 1.0
