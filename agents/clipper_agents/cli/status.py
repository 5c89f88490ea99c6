"""`clipper-stream status`: what an operator sees, from any machine that reaches Kafka."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipper_agents import exits
from clipper_agents.cli.deployment import DeploymentContext, with_deployment
from clipper_agents.cli.options import Json
from clipper_agents.cli.terminal import console, print_json

if TYPE_CHECKING:
    from clipper_agents.status.model import Status

MostLag = Annotated[int, typer.Option(metavar="RECORDS", min=0, help="Unread records of a group that are still fine.")]
Application = Annotated[str | None, typer.Option(metavar="NAME", help="Show this application alone.")]
Watch = Annotated[bool, typer.Option("--watch", help="Show it each second, until Ctrl-C.")]
Show = Callable[["Status"], list[str]]


@with_deployment
def status(
    deployment: DeploymentContext,
    as_json: Json = False,
    watch: Watch = False,
    application: Application = None,
    most_lag: MostLag = 10_000,
) -> None:
    """Show brokers, topics, routers, hosts, lag, applications with their versions, and what is wrong with them.

    Exit code 0: nothing is wrong, or --watch was ended. 1: something is, each in a line at the end. 3: no broker
    answers.
    """
    from clipper_agents.status.collect import read_status

    view, show = view_of(application, most_lag, as_json=as_json, is_watched=watch)
    with view:
        if watch:
            asyncio.run(_watch(deployment, show))
            return
        reasons = show(asyncio.run(read_status(deployment.kafka, deployment.catalogue)))
    raise typer.Exit(exits.FAILURE if reasons else exits.OK)


async def _watch(deployment: DeploymentContext, show: Show) -> None:
    from clipper_agents.status.collect import follow_status

    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with aclosing(follow_status(deployment.kafka, deployment.catalogue, ended.is_set)) as found:
        async for one in found:
            show(one)


def view_of(
    application: str | None, most_lag: int, *, as_json: bool, is_watched: bool
) -> tuple[AbstractContextManager[Any], Show]:
    """Return the context manager of a view, and the function that shows a status in it and returns what is wrong."""
    import msgspec

    from clipper_agents.cli.status_view import page
    from clipper_agents.status.problems import problems_of

    screen = console()
    live = None
    if is_watched and screen.is_terminal and not as_json:
        from rich.live import Live

        live = Live(console=screen, auto_refresh=False)

    def show(found: "Status") -> list[str]:
        reasons = []
        if application is not None:
            alone = {name: one for name, one in found.applications.items() if name == application}
            found = replace(found, applications=alone)
            if not alone:
                reasons.append(f"application {application} is not declared: run `clipper-stream apply`")
        reasons += map(str, problems_of(found, most_lag))
        content = msgspec.to_builtins(found) | {"reasons": reasons}
        if as_json:
            print_json(content)
        elif live is not None:
            live.update(page(found, reasons, is_watched=True), refresh=True)
        else:
            screen.print(page(found, reasons, is_watched=is_watched), crop=False)
        return reasons

    return live or nullcontext(), show
