"""`clipper-stream watch`: what flows through applications, second by second."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipper_agents.cli.deployment import DeploymentContext, with_deployment

if TYPE_CHECKING:
    from clipper_agents.status.watch import Snapshot

Application = Annotated[str | None, typer.Option(metavar="NAME", help="Show this application alone.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a second, for machines.")]
Show = Callable[["Snapshot"], None]


@with_deployment
def watch(deployment: DeploymentContext, application: Application = None, as_json: Json = False) -> None:
    """Show throughput, latency, defaults, versions, trials and events, each second, until Ctrl-C.

    In a pipe: a line an application and second. Exit code 0: Ctrl-C or SIGTERM. 3: no broker answers.
    """
    view, show = _view(as_json, deployment.prefix)
    with view:
        asyncio.run(_watch(deployment, application, show))


async def _watch(deployment: DeploymentContext, application: str | None, show: Show) -> None:
    from clipper_agents.status.watch import snapshots

    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    found = snapshots(deployment.kafka, deployment.catalogue, application, ended.is_set)
    async with aclosing(found):  # the connection is closed before the event loop is
        async for look in found:
            show(look)


def _view(as_json: bool, prefix: str) -> tuple[AbstractContextManager[Any], Show]:
    """Return the context manager of the live view, and the function that shows a snapshot."""
    from rich.console import Console

    from clipper_agents.cli.watch_view import json_line, lines, page

    if as_json:
        return nullcontext(), lambda look: print(json_line(look), flush=True)
    console = Console()
    if console.is_terminal:
        from rich.live import Live

        live = Live(console=console, auto_refresh=False, vertical_overflow="visible")
        return live, lambda look: live.update(page(look, prefix, console.width), refresh=True)
    told: list[str] = []

    def print_lines(look: "Snapshot") -> None:
        print("\n".join(lines(look, told)), flush=True)
        told[:] = look.reasons

    return nullcontext(), print_lines
