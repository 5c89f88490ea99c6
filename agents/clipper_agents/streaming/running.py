"""The life of a worker process: start, say that it serves, drain when told, end loudly when it cannot go on."""

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from typing import Protocol

import uvloop

from clipper_agents.streaming.app import ClipperApp

logger = logging.getLogger(__name__)

STOP_WITHIN_S = 15.0
"""A stop that hangs (a broker that is gone) ends with the process after so long; nothing is lost by it."""
EXIT_CRASHED = 4
"""Exit code of a worker that ended because it could not go on."""


class Worker(Protocol):
    """What a worker process runs."""

    app: ClipperApp

    async def start(self) -> None:
        """Start; the app's inputs flow some time after this returns."""
        ...

    async def stop(self) -> None:
        """Drain and stop."""
        ...


def run_worker(make: Callable[[], Awaitable[Worker]], ready: Callable[[], str]) -> None:
    """Run a worker until SIGTERM or SIGINT; returns after a clean stop.

    Args:
        make: Makes the worker, inside the event loop.
        ready: The line to print on stdout when the worker serves.

    Raises:
        SystemExit: with `EXIT_CRASHED`, when the worker could not go on.
    """
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    crashed = asyncio.run(_run(make, ready))
    logging.shutdown()
    os._exit(EXIT_CRASHED if crashed else 0)  # threads of libraries do not outlive their worker


async def _run(make: Callable[[], Awaitable[Worker]], ready: Callable[[], str]) -> bool:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    worker = await make()
    ended = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(worker.app._crashed.wait())]
    started = asyncio.ensure_future(_start(worker))
    await asyncio.wait([started, *ended], return_when=asyncio.FIRST_COMPLETED)
    failed = started.done() and started.exception() is not None
    if started.done() and not failed:
        print(ready(), flush=True)  # noqa: T201 (what a supervisor waits for)
        await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
    crashed = failed or worker.app.crashed
    if failed:
        logger.error("worker stops reason=%r", started.exception(), exc_info=started.exception())
    elif worker.app.crashed:
        logger.error("worker stops reason=%r", worker.app._crash_reason)
    _end_anyway()
    with contextlib.suppress(asyncio.CancelledError):
        if not crashed:
            await worker.stop()
    return crashed


async def _start(worker: Worker) -> None:
    await worker.start()
    await worker.app.inputs_flow.wait()


def _end_anyway() -> None:
    timer = threading.Timer(STOP_WITHIN_S, os._exit, args=(EXIT_CRASHED,))
    timer.daemon = True
    timer.start()
