"""`clipper-stream broker`: the embedded broker in the foreground."""

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipper_agents.cli.deployment import with_logs
from clipper_agents.cli.terminal import say

if TYPE_CHECKING:
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
    from clipper_agents.broker import BrokerNotStarted, EmbeddedBroker

    logs.configure(os.environ)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with EmbeddedBroker(data_dir, port, heap_mib) as running:
        say(f"ready bootstrap={running.bootstrap}")
        while not ended.wait(1.0):
            if running.pid is None:
                raise BrokerNotStarted(f"Kafka ended by itself (log: {running.log_file})")
