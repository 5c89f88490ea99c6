"""A worker that is told to end leaves no task behind: while it starts, while it serves, and while Kafka is away.

Its probes say all the while that it lives, and why it does not serve.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2e.programs import Program, environment, run, until

from clipper_agents.broker import EmbeddedBroker
from clipper_agents.broker.properties import free_port
from clipper_agents.kafka.topic_ids import CREATE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples/clipper.toml"
WORKERS = ("router", "host slow-sum:1", "steward")
TOLD = ("was destroyed", "never retrieved", "never awaited", "Traceback")
"""What Python says of a task that nobody ended, waited for or looked at."""


SPARE = "no partition is assigned: there are more such processes than partitions"


def unready(*reasons: str) -> tuple[int, dict[str, Any]]:
    """What `/readyz` answers for these reasons; 200 without one."""
    return 503 if reasons else 200, {"ready": not reasons, "reasons": list(reasons)}


ENDS, GONE = unready("the process ends"), (0, {})


def said(url: str) -> tuple[int, dict[str, Any]]:
    """What a probe answers, with its status; `GONE` for one that does not."""
    try:
        answer = httpx.get(url, timeout=30, trust_env=False)
    except httpx.TransportError:
        return GONE
    return answer.status_code, answer.json()


class Workers:
    """One worker of each kind, all started."""

    def __init__(self, stack: ExitStack, folder: Path, bootstrap: str, instance: str = "first") -> None:
        self.ports = {role: free_port() for role in WORKERS}
        environ = environment(
            KAFKA_BOOTSTRAP_SERVERS=bootstrap,
            **{f"CLIPPER_{role.split()[0].upper()}_METRICS_PORT": str(port) for role, port in self.ports.items()},
            CLIPPER_ROUTER_DATA_DIR=str(folder / "data"),
            CLIPPER_HOST_DATA_DIR=str(folder / "data"),
        )
        self.all = {
            role: stack.enter_context(
                Program(
                    *("worker", *role.split(), "--instance", instance, "-c", str(EXAMPLE)),
                    folder=folder / role[:4],
                    environ=environ,
                )
            )
            for role in WORKERS
        }

    def say(self, *texts: str) -> None:
        """Wait until each worker has written one of these to its log."""
        for role, worker in self.all.items():
            until(f"{role}: {texts}", lambda worker=worker: any(text in worker.log for text in texts), 90.0)

    def said(self, path: str) -> dict[str, tuple[int, dict[str, Any]]]:
        """What the probes of each worker answer."""
        return {role: said(f"http://127.0.0.1:{port}{path}") for role, port in self.ports.items()}

    def are(self, *reasons: str) -> None:
        """Wait until each worker, but for a host that is one too many, says this of itself; all say that they live."""

        def reasons_told() -> list[Any]:
            return [{*about.get("reasons", ["gone"])} - {SPARE} for _, about in self.said("/readyz").values()]

        until(f"probes say {reasons}", lambda: reasons_told() == [set(reasons)] * len(WORKERS), 90.0)
        assert [status for status, _ in self.said("/livez").values()] == [200] * len(WORKERS)

    def end(self) -> dict[str, int]:
        """Tell all to end; their exit codes. None of them says that it left something behind."""
        for worker in self.all.values():
            worker.signal(signal.SIGTERM)
        codes = {role: worker.ended() for role, worker in self.all.items()}
        for role, worker in self.all.items():
            assert [text for text in TOLD if text in worker.log] == [], f"{role}\n{worker.log}"
        return codes


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


def test_workers_that_wait_for_kafka_end_when_they_are_told(stack, tmp_path):
    workers = Workers(stack, tmp_path, f"127.0.0.1:{free_port()}")
    workers.say("waiting for kafka")
    assert workers.said("/readyz") == {
        "router": unready("no broker answers", "the process starts"),
        "host slow-sum:1": unready("no broker answers", "the process starts"),
        "steward": unready("no broker answers", "the process starts"),
    }
    assert set(map(repr, workers.said("/livez").values())) == {repr((200, {"live": True}))}
    assert set(workers.end().values()) == {0}


def test_hosts_that_wait_for_kafka_say_so_and_end_when_they_are_told(stack, tmp_path):
    port = free_port()
    environ = environment(KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}", CLIPPER_SUPERVISOR_METRICS_PORT=str(port))
    hosts = stack.enter_context(Program("worker", "hosts", "-c", str(EXAMPLE), folder=tmp_path, environ=environ))
    until("they wait", lambda: "waiting for kafka" in hosts.log, 90.0)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
        assert client.get("/livez").json() == {"live": True}
        assert client.get("/readyz").json()["reasons"] == ["no broker answers", "the process starts"]
    hosts.signal(signal.SIGTERM)
    assert hosts.ended() == 0
    assert [text for text in TOLD if text in hosts.log] == [], hosts.log


def test_workers_that_start_or_serve_or_have_lost_kafka_leave_no_task_when_they_end(stack, tmp_path):
    broker = stack.enter_context(EmbeddedBroker())
    without_topics = Workers(stack, tmp_path / "start", broker.bootstrap)
    without_topics.say("waiting for topics=")
    told = without_topics.said("/readyz")
    assert told["host slow-sum:1"] == unready(f"topic clipper.requests.slow-sum.1 is missing: {CREATE}")
    assert told["steward"] == unready("the control topic is not read yet")
    status, router = told["router"]
    assert (status, "clipper.queries, " in router["reasons"][0]) == (503, True)
    assert set(without_topics.end().values()) == {0}
    environ = environment(KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap)
    assert run("apply", "-c", str(EXAMPLE), folder=tmp_path, environ=environ).code == 0
    frozen = Workers(stack, tmp_path / "frozen", broker.bootstrap)
    killed = Workers(stack, tmp_path / "killed", broker.bootstrap, "second")
    for worker in (*frozen.all.values(), *killed.all.values()):
        worker.ready()
    frozen.are()
    hosts = [workers.said("/readyz")["host slow-sum:1"] for workers in (frozen, killed)]
    assert sorted(hosts, key=repr) == [unready(), unready(SPARE)], "there is one partition of requests"
    os.kill(broker.pid, signal.SIGSTOP)
    frozen.say("no broker answers")
    frozen.are("no broker answers")
    os.kill(broker.pid, signal.SIGCONT)
    frozen.are()
    os.kill(broker.pid, signal.SIGSTOP)
    frozen.are("no broker answers")
    frozen.all["router"].signal(signal.SIGTERM)
    until("nobody is sent to a router that drains", lambda: frozen.said("/readyz")["router"] in (ENDS, GONE))
    frozen.end()
    broker.stop(kill=True)
    killed.say("no broker answers")
    killed.end()
