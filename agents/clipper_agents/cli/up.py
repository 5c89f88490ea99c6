"""`clipper-stream up`: everything that a configuration says, on this machine."""

import asyncio
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from clipper_agents.cli.deployment import DeploymentContext, with_configured_deployment
from clipper_agents.cli.options import LogLevel
from clipper_agents.cli.terminal import say

if TYPE_CHECKING:
    from clipper_agents.supervisor.deployment import Deployment

Profile = Annotated[bool, typer.Option("--profile", help="As --set router.profile=true: routers time their stages.")]
Apply = Annotated[bool, typer.Option("--apply", help="Publish the configuration also over what is live.")]
WATCH_S = 1.0
"""How often `up` looks whether its broker is still there."""


@with_configured_deployment
def up(
    deployment: DeploymentContext, log_level: LogLevel = None, apply: Apply = False, profile: Profile = False
) -> None:
    """Start broker (unless there is an address), routers and model hosts, until Ctrl-C or SIGTERM.

    Prints one line, `ready bootstrap=HOST:PORT`, when a query sent now will be answered. Logs go to standard error.
    Publishes what the configuration adds; what differs from it is live and stays, and the difference is logged.
    The end waits for what is open; a second Ctrl-C does not.
    """
    from clipper_agents.observability.logging import configure_logging
    from clipper_agents.supervisor.deployment import Deployment

    configure_logging(log_level, os.environ)
    if profile:
        deployment = replace(deployment, assignments=(*deployment.assignments, "router.profile=true"))
    asyncio.run(serve(Deployment(deployment.settings, overwrite=apply, log_level=log_level)))


async def serve(deployment: "Deployment") -> None:
    """Start it, say when it serves, and end it at the first SIGINT or SIGTERM; at a second one kill what is left.

    Raises:
        SetupError: it cannot start, or its broker ended.
    """
    ending = asyncio.Event()

    def end() -> None:
        if ending.is_set():
            deployment.supervisor.kill()
        ending.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    ended = asyncio.create_task(ending.wait())
    try:
        await _start_unless(deployment, ended)
        if not ending.is_set():
            say(f"ready bootstrap={deployment.connection.bootstrap}")
            await _watch_until(deployment, ended)
    finally:
        ended.cancel()
        await deployment.stop()


async def _start_unless(deployment: "Deployment", ended: "asyncio.Task[bool]") -> None:
    starting = asyncio.create_task(deployment.start())
    await asyncio.wait({starting, ended}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
    await asyncio.wait({starting})
    if not starting.cancelled():
        starting.result()


async def _watch_until(deployment: "Deployment", ended: "asyncio.Task[bool]") -> None:
    from clipper_agents.broker import BrokerNotStarted

    while not (await asyncio.wait({ended}, timeout=WATCH_S))[0]:
        broker = deployment.broker
        if broker is not None and broker.pid is None:
            raise BrokerNotStarted(f"the embedded Kafka ended by itself (log: {broker.log_file})")
