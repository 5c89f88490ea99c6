import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2e.programs import Program, environment, reserved_port, run_here, until

from clipper_agents.broker import EmbeddedBroker
from clipper_agents.kafka.topic_ids import CREATE

EXAMPLE = Path(__file__).parents[2] / "examples/clipper.toml"
HOST = "host slow-sum:1"
SECTIONS = {"router": "ROUTER", HOST: "HOST", "steward": "STEWARD", "hosts": "SUPERVISOR"}
"""Workers, and whose settings have the port of their probes."""
TOLD = ("was destroyed", "never retrieved", "never awaited", "Traceback")
"""What Python says of a task that nobody ended, waited for or looked at."""
Readiness = tuple[int, dict[str, Any]]
GONE: Readiness = (0, {})


def unready(*reasons: str) -> Readiness:
    """What `/readyz` answers for these reasons; 200 without one."""
    return 503 if reasons else 200, {"ready": not reasons, "reasons": [*reasons]}


class Workers:
    """One worker of each kind, all started; those that were told to end are none of them any more."""

    def __init__(self, stack: ExitStack, folder: Path, bootstrap: str) -> None:
        self.ports = {role: stack.enter_context(reserved_port()) for role in SECTIONS}
        environ = environment(
            KAFKA_BOOTSTRAP_SERVERS=bootstrap,
            **{f"CLIPPER_{SECTIONS[role]}_METRICS_PORT": str(port) for role, port in self.ports.items()},
            CLIPPER_ROUTER_DATA_DIR=str(folder / "data"),
            CLIPPER_HOST_DATA_DIR=str(folder / "data"),
        )
        self.all = {}
        for role in SECTIONS:
            words = ("worker", *role.split(), *(() if role == "hosts" else ("--instance", "first")), "-c", str(EXAMPLE))
            self.all[role] = stack.enter_context(Program(*words, folder=folder / role[:5], environ=environ))

    def say(self, text: str) -> None:
        """Wait until each worker has written this to its log."""
        for role, worker in self.all.items():
            until(f"{role}: {text}", lambda worker=worker: text in worker.log or worker.code is not None, 90.0)
            assert worker.code is None, worker.log

    def probe(self, role: str, path: str = "/readyz") -> Readiness:
        """What a probe of a worker answers, with its status."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.ports[role]}{path}", timeout=30, trust_env=False)
        except httpx.TransportError:
            return GONE
        return answer.status_code, answer.json()

    def are(self, *reasons: str) -> None:
        """Wait until each worker says this of itself; all say that they live."""
        for role in self.all:
            until(f"{role} says {reasons}", lambda role=role: self.probe(role) == unready(*reasons), 90.0)
        assert {role: self.probe(role, "/livez") for role in self.all} == dict.fromkeys(self.all, (200, {"live": True}))

    def end(self, roles: Iterable[str]) -> set[int]:
        """Tell some to end; their exit codes. None of them says that it left something behind."""
        ended = {role: self.all.pop(role) for role in roles}
        for worker in ended.values():
            worker.signal(signal.SIGTERM)
        codes = {worker.ended() for worker in ended.values()}
        for role, worker in ended.items():
            assert [text for text in TOLD if text in worker.log] == [], f"{role}\n{worker.log}"
        return codes


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


REST = ["router", HOST, "steward"]
SLOW = [([*SECTIONS], [], []), (["hosts"], REST, []), (["hosts"], [], REST), (["hosts"], [], [])]


@pytest.mark.parametrize(
    ("without_broker", "without_topics", "frozen"),
    [(["hosts"], [], ["router"]), *(pytest.param(*one, marks=pytest.mark.slow) for one in SLOW)],
)
def test_workers_say_what_they_wait_for_and_leave_no_task_when_they_end(
    stack, tmp_path, without_broker, without_topics, frozen
):
    """Those that are named end before there is a broker, before there are topics, or while it is frozen; all others
    when it was killed.
    """
    port = stack.enter_context(reserved_port())
    workers = Workers(stack, tmp_path, f"127.0.0.1:{port}")
    workers.say("waiting for kafka")
    workers.are("no broker answers", "the process starts")
    assert workers.end(without_broker) == {0}
    if not workers.all:
        return
    broker = stack.enter_context(EmbeddedBroker(port=port))
    workers.say("waiting for topics")
    assert workers.probe(HOST) == unready(f"topic clipper.requests.slow-sum.1 is missing: {CREATE}")
    assert workers.probe("steward") == unready("the control topic is not read yet")
    status, router = workers.probe("router")
    assert (status, "clipper.queries, " in router["reasons"][0]) == (503, True)
    assert workers.end(without_topics) <= {0}
    environ = environment(KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap)
    assert run_here("apply", "-c", str(EXAMPLE), folder=tmp_path, environ=environ).code == 0
    for worker in workers.all.values():
        worker.ready()
    workers.are()
    os.kill(broker.pid, signal.SIGSTOP)
    workers.say("no broker answers")
    workers.are("no broker answers")
    if "router" in frozen:
        workers.all["router"].signal(signal.SIGTERM)
        drains = unready("the process ends"), GONE
        until("nobody is sent to a router that drains", lambda: workers.probe("router") in drains)
    workers.end(frozen)
    os.kill(broker.pid, signal.SIGCONT)
    workers.are()
    broker.stop(kill=True)
    workers.end([*workers.all])
