"""`clipper-stream status` and `watch`: what an operator sees, from any machine that reaches Kafka."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipper_agents import exits
from clipper_agents.cli.deployment import DeploymentContext, with_deployment
from clipper_agents.cli.options import Json
from clipper_agents.cli.terminal import console, print_json, say

if TYPE_CHECKING:
    from clipper_agents.status.watch import Snapshot

MostLag = Annotated[int, typer.Option(metavar="RECORDS", min=0, help="Unread records of a group that are still fine.")]
Context = Annotated[
    str | None, typer.Option(metavar="CONTEXT", help="Show the weights and losses of this context of each application.")
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(metavar="HOST:PORT", help="Metrics of a worker, for batch limits and latencies; repeatable."),
]
Application = Annotated[str | None, typer.Option(metavar="NAME", help="Show this application alone.")]
Show = Callable[["Snapshot"], None]


@with_deployment
def status(
    deployment: DeploymentContext,
    as_json: Json = False,
    most_lag: MostLag = 10_000,
    context: Context = None,
    metrics: Metrics = None,
) -> None:
    """Show brokers, topics, routers, hosts, lag, applications with their versions, and what is wrong with them.

    Exit code 0: nothing is wrong. 1: something is, each in a line at the end. 3: no broker answers.
    """
    import msgspec

    from clipper_agents.cli.status_view import COLUMNS, show
    from clipper_agents.status.collect import read_status
    from clipper_agents.status.problems import reasons_of
    from clipper_agents.status.processes import configured_addresses

    addresses = [*configured_addresses(deployment.settings), *(metrics or ())]
    found = asyncio.run(read_status(deployment.kafka, deployment.catalogue, context, addresses))
    reasons = reasons_of(found, most_lag)
    if as_json:
        print_json(msgspec.to_builtins(found) | {"reasons": reasons})
    else:
        show(console(COLUMNS), found, reasons)
    raise typer.Exit(exits.FAILURE if reasons else exits.OK)


@with_deployment
def watch(deployment: DeploymentContext, application: Application = None, as_json: Json = False) -> None:
    """Show throughput, latency, defaults, versions, trials and events, each second, until Ctrl-C.

    A terminal with room for them has curves of the last minutes as well. In a pipe: a line an application and second.
    Exit code 0: Ctrl-C or SIGTERM. 3: no broker answers.
    """
    view, show = view_of(as_json, deployment.prefix)
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


def view_of(as_json: bool, prefix: str) -> tuple[AbstractContextManager[Any], Show]:
    """Return the context manager of the live view, and the function that shows a snapshot."""
    from clipper_agents.cli.status_view import json_line, lines, page

    if as_json:
        return nullcontext(), lambda look: say(json_line(look))
    screen = console()
    if screen.is_terminal:
        from rich.live import Live

        from clipper_agents.cli.sparklines import RecentCurves

        live = Live(console=screen, auto_refresh=False, vertical_overflow="visible")
        curves = RecentCurves()

        def draw(look: "Snapshot") -> None:
            curves.add(look)
            shown = page(look, prefix, curves.tables(screen) if len(look.applications) < screen.height else {})
            if len(screen.render_lines(shown, pad=False)) >= screen.height:  # a page that scrolls cannot be drawn over
                shown = page(look, prefix, {})
            live.update(shown, refresh=True)

        return live, draw
    told: list[str] = []

    def print_lines(look: "Snapshot") -> None:
        say(*lines(look, told))
        told[:] = look.reasons

    return nullcontext(), print_lines
