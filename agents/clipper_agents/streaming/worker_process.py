"""The life of a worker process: start, say that it serves, drain when told, end loudly when it cannot go on.

    make --> start --> inputs flow --> ready line --> SIGTERM --> drained, stopped --> exit 0
     | SetupError |                        | app crashed              | not within STOP_WITHIN_S
     '------------+--> exit 3              '--> exit 4                '--> exit 4
                                           '--> exit 3 when Kafka refuses a right, or a topic was made anew

Nothing is lost by any of these ends: what is not acknowledged is read again by the next process.
"""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Protocol

import uvloop
from aiokafka.errors import ProducerClosed

from clipper_agents import exits
from clipper_agents.memory import settle_memory
from clipper_agents.observability.logging import error_line
from clipper_agents.observability.probes import ProcessHealth
from clipper_agents.observability.tracing import stop_tracing
from clipper_agents.streaming.app import ClipperApp
from clipper_stream.client.access import RIGHTS, refused_right
from clipper_stream.errors import ClipperError, SetupError, plain
from clipper_topics.connection import KafkaConnection
from clipper_topics.errors import UnknownRowVersion

logger = logging.getLogger(__name__)

SWITCH_S = 0.0005
"""How long a thread may keep the interpreter while another waits. Python's 5 ms are paid at each step of an answer's
way while a model is made in pure Python."""
_ready_line: int | None = None
"""Descriptor of the standard output that the process was started with, once a model may print."""
STOP_WITHIN_S = 15.0
"""A stop that hangs (a batch in a model, a broker that is gone) ends with the process after so long."""


class Worker(Protocol):
    """What a worker process runs: `stop` drains. A part of it that fails crashes the app, and the process ends."""

    app: ClipperApp

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class WorkerListener(Protocol):
    """Is told when the inputs of a worker flow, before the ready line is printed, and why it cannot go on."""

    async def serves(self) -> None: ...
    def fails(self, reason: BaseException | None, /) -> None: ...


def run_worker(
    make: Callable[[], Worker],
    ready: str,
    kafka: KafkaConnection,
    health: ProcessHealth,
    listener: WorkerListener | None = None,
) -> None:
    """Run a worker, made inside the event loop, until SIGTERM or SIGINT; print the line `ready` when it serves.

    Then end the process: threads of libraries do not outlive their worker.
    """
    sys.setswitchinterval(SWITCH_S)
    try:
        code = asyncio.Runner(loop_factory=uvloop.new_event_loop).run(_run(make, ready, health, listener))
    except (SetupError, UnknownRowVersion, *RIGHTS) as error:  # not raised on: the end would wait for threads of models
        reason = refused_right(kafka, error) if isinstance(error, RIGHTS) else error
        if listener is not None:
            listener.fails(reason)  # before the last words, which are the error's
        for line in str(reason).splitlines():
            print(plain(error_line(line)), file=sys.stderr, flush=True)  # noqa: T201 (as any command tells it)
        code = exits.SETUP
    stop_tracing()
    logging.shutdown()
    os._exit(code)


async def _run(make: Callable[[], Worker], ready: str, health: ProcessHealth, listener: WorkerListener | None) -> int:
    told = asyncio.Event()

    def end() -> None:
        health.is_draining = True
        told.set()

    exits.end_on_signals(end, lambda: f"what is in flight is finished, within {STOP_WITHIN_S:g} s")
    health.watch_loop()
    worker = make()
    ends = [asyncio.ensure_future(told.wait()), asyncio.ensure_future(worker.app.wait_until_stopped())]
    starting = asyncio.ensure_future(_start(worker))
    await asyncio.wait([starting, *ends], return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
        settle_memory()
        if listener is not None:
            await listener.serves()
        _say(ready)
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if worker.app.crashed:
        reason = worker.app.crash_reason
        if isinstance(reason, (SetupError, UnknownRowVersion, *RIGHTS)):
            raise reason
        _tell(reason, worker.app.consumer.instance)
        if listener is not None:
            listener.fails(reason)
        return exits.CRASHED
    _arm_shutdown_timeout()
    await worker.stop()
    return exits.CRASHED if failed_while_stopping(worker.app) or worker.app.outgrown else exits.OK


def failed_while_stopping(app: ClipperApp) -> bool:
    """Return whether the app failed, other than by using a client that is closed, or not started yet: no harm done."""
    return bool(app.crashed) and not isinstance(app.crash_reason, ProducerClosed)


def redirect_stdout() -> None:
    """Keep standard output for the ready line, by which a supervisor knows: a model prints to standard error now."""
    global _ready_line  # noqa: PLW0603 - there is one standard output
    if _ready_line is None:
        sys.stdout.flush()
        _ready_line = os.dup(1)
        os.dup2(2, 1)


def _say(line: str) -> None:
    os.write(1 if _ready_line is None else _ready_line, f"{line}\n".encode())


def _tell(reason: BaseException | None, instance: str) -> None:
    """Log why the worker ends: an operator's problem in one line, a defect of ours with its traceback."""
    if isinstance(reason, ClipperError):
        logger.error("worker cannot go on instance=%s: %s", instance, reason)
    else:
        logger.error("worker cannot go on instance=%s reason=%r", instance, reason, exc_info=reason)


async def _start(worker: Worker) -> None:
    await worker.start()
    await worker.app.inputs_flow.wait()


def _arm_shutdown_timeout() -> None:
    timer = threading.Timer(STOP_WITHIN_S, _give_up)
    timer.daemon = True
    timer.start()


def _give_up() -> None:
    logger.error("worker not drained seconds=%s", STOP_WITHIN_S)
    logging.shutdown()
    os._exit(exits.CRASHED)
