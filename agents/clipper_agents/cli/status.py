"""`clipper-stream status`: what an operator sees, from any machine that reaches Kafka."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from clipper_agents import exits
from clipper_agents.cli.deployment import DeploymentContext, with_deployment

if TYPE_CHECKING:
    from clipper_agents.status.model import Status

Json = Annotated[bool, typer.Option("--json", help="One JSON object, with the reasons, for machines.")]
MostLag = Annotated[int, typer.Option(metavar="RECORDS", min=0, help="Unread records of a group that are still fine.")]
Context = Annotated[
    str | None, typer.Option(metavar="CONTEXT", help="Show the weights and losses of this context of each application.")
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(metavar="HOST:PORT", help="Metrics of a worker, for batch limits and latencies; repeatable."),
]


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
    from clipper_agents.status.collect import read_status
    from clipper_agents.status.problems import reasons_of
    from clipper_agents.status.processes import configured_addresses

    addresses = [*configured_addresses(deployment.settings), *(metrics or ())]
    found = asyncio.run(read_status(deployment.kafka, deployment.catalogue, context, addresses))
    reasons = reasons_of(found, most_lag)
    _show(found, reasons, as_json)
    raise typer.Exit(exits.FAILURE if reasons else exits.OK)


def _show(found: "Status", reasons: list[str], as_json: bool) -> None:
    if as_json:
        import msgspec

        print(msgspec.json.encode(msgspec.to_builtins(found) | {"reasons": reasons}).decode(), flush=True)
        return
    from rich.console import Console

    from clipper_agents.cli.applications_view import COLUMNS
    from clipper_agents.cli.status_view import show

    terminal = Console()
    show(terminal if terminal.is_terminal else Console(width=COLUMNS), found, reasons)
