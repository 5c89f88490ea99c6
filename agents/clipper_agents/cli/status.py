"""`clipper-stream status`: what an operator sees, from any machine that reaches Kafka."""

import asyncio
import signal
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from clipper_agents import exits
from clipper_agents.cli.deployment import DeploymentContext, with_deployment
from clipper_agents.cli.options import Json
from clipper_agents.cli.terminal import console, print_json, say

if TYPE_CHECKING:
    from clipper_agents.status.model import Status

MostLag = Annotated[int, typer.Option(metavar="RECORDS", min=0, help="Unread records of a group that are still fine.")]
Application = Annotated[str | None, typer.Option(metavar="NAME", help="Show this application alone.")]
Watch = Annotated[bool, typer.Option("--watch", help="Show it each second, until Ctrl-C.")]


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
    from clipper_agents.status.collect import follow_status, read_status

    target = deployment.kafka, deployment.catalogue
    if not watch:
        reasons = show_status(asyncio.run(read_status(*target)), application, most_lag, as_json=as_json)
        raise typer.Exit(exits.FAILURE if reasons else exits.OK)

    async def follow() -> None:
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        async with aclosing(follow_status(*target, ended.is_set)) as found:
            async for one in found:
                if not as_json:
                    console().clear()  # of a terminal
                show_status(one, application, most_lag, as_json=as_json, is_watched=True)

    asyncio.run(follow())


def show_status(
    found: "Status", application: str | None, most_lag: int, *, as_json: bool, is_watched: bool = False
) -> list[str]:
    """Print a deployment, or one application alone, and return what is wrong; say what a terminal cannot show."""
    import msgspec

    from clipper_agents.cli.status_view import page
    from clipper_agents.status.problems import problems_of

    reasons = []
    if application is not None:
        alone = {name: one for name, one in found.applications.items() if name == application}
        found = replace(found, applications=alone)
        if not alone:
            reasons.append(f"application {application} is not declared: run `clipper-stream apply`")
    reasons += map(str, problems_of(found, most_lag))
    if as_json:
        print_json(msgspec.to_builtins(found) | {"reasons": reasons})
        return reasons
    screen, shown = console(), page(found if application is None else replace(found, cluster=None, models={}), reasons)
    screen.print(shown, crop=False)
    above = len(screen.render_lines(shown, pad=False)) + 1 - screen.height if is_watched and screen.is_terminal else 0
    if above > 0:
        say(f"{above + 1} lines above do not fit into this terminal: --application NAME shows one application alone")
    return reasons
