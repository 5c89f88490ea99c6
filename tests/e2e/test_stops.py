"""A worker that is told to end leaves no task behind: while it starts, while it serves, and while Kafka is away."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from e2e.programs import Program, environment, run, until

from clipper_agents.broker import EmbeddedBroker
from clipper_agents.broker.properties import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples/clipper.toml"
WORKERS = ("router", "host slow-sum:1", "steward")
TOLD = ("was destroyed", "never retrieved", "never awaited", "Traceback")
"""What Python says of a task that nobody ended, waited for or looked at."""


class Workers:
    """One worker of each kind, all started."""

    def __init__(self, stack: ExitStack, folder: Path, bootstrap: str, instance: str = "first") -> None:
        environ = environment(
            KAFKA_BOOTSTRAP_SERVERS=bootstrap,
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
    assert set(workers.end().values()) == {0}


def test_workers_that_start_or_serve_or_have_lost_kafka_leave_no_task_when_they_end(stack, tmp_path):
    broker = stack.enter_context(EmbeddedBroker())
    without_topics = Workers(stack, tmp_path / "start", broker.bootstrap)
    without_topics.say("waiting for topics", "not found in cluster metadata")
    assert set(without_topics.end().values()) == {0}
    environ = environment(KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap)
    assert run("apply", "-c", str(EXAMPLE), folder=tmp_path, environ=environ).code == 0
    frozen = Workers(stack, tmp_path / "frozen", broker.bootstrap)
    killed = Workers(stack, tmp_path / "killed", broker.bootstrap, "second")
    for worker in (*frozen.all.values(), *killed.all.values()):
        worker.ready()
    os.kill(broker.pid, signal.SIGSTOP)
    frozen.say("no broker answers")
    frozen.end()
    broker.stop(kill=True)
    killed.say("no broker answers")
    killed.end()
