"""`clipper-stream broker`: the embedded broker in the foreground."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipper_agents import exits
from clipper_agents.cli.deployment import with_logs
from clipper_agents.cli.terminal import say

if TYPE_CHECKING:
    from clipper_agents.broker import EmbeddedBroker
    from clipper_agents.observability.logging import LogOptions


@with_logs
def broker(
    logs: "LogOptions",
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the records here; absent: forget them at the end.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; absent: as last time, else a free one.")
    ] = None,
    heap_mib: Annotated[int, typer.Option(min=128, help="Java heap in MiB.")] = 512,
) -> None:
    """Run an Apache Kafka without Docker until Ctrl-C or SIGTERM.

    Prints one line, `ready bootstrap=HOST:PORT`, when it can be used.
    """
    from clipper_agents.broker import EmbeddedBroker

    logs.configure(os.environ)
    asyncio.run(_run(EmbeddedBroker(data_dir, port, heap_mib)))


async def _run(broker: "EmbeddedBroker") -> None:
    from clipper_agents.broker import BrokerNotStarted

    ended = asyncio.Event()
    exits.end_on_signals(ended.set, lambda: "Kafka stops")
    try:
        await asyncio.to_thread(broker.start)
        say(f"ready bootstrap={broker.bootstrap}")
        while not ended.is_set():
            if broker.pid is None:
                raise BrokerNotStarted(f"Kafka ended by itself (log: {broker.log_file})")
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await ended.wait()
    finally:
        await asyncio.to_thread(broker.stop)
