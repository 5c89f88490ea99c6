"""`clipper-stream status`: what an operator sees, from any machine that reaches Kafka."""

import asyncio
import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from clipper_agents import exits
from clipper_agents.cli.options import Bootstrap, ConfigFile, Set, settings_from

if TYPE_CHECKING:
    from clipper_agents.admin.status import Status

Json = Annotated[bool, typer.Option("--json", help="One JSON object a look, with the reasons, for machines.")]
Refresh = Annotated[
    float | None, typer.Option("--watch", metavar="SECONDS", min=0.1, help="Look again and again, until Ctrl-C.")
]
MostLag = Annotated[int, typer.Option(metavar="RECORDS", min=0, help="Unread records of a group that are still fine.")]


def status(
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    assignments: Set = None,
    as_json: Json = False,
    watch_s: Refresh = None,
    most_lag: MostLag = 10_000,
) -> None:
    """Show brokers, topics, routers, hosts, lag and dead letters, and what is wrong with them.

    Exit code 0: nothing is wrong. 1: something is, each in a line at the end. 3: no broker answers.
    """
    from clipper_agents.admin.looking import read_status
    from clipper_stream.errors import SetupError

    settings = settings_from(config, bootstrap, assignments)
    connection = settings.connection(os.environ)
    while True:
        try:
            found = asyncio.run(read_status(connection, settings.catalogue))
        except SetupError as error:
            if watch_s is None:
                raise
            print(f"wrong: {error}", flush=True)
        else:
            reasons = found.reasons(most_lag)
            _show(found, reasons, as_json, clear=watch_s is not None)
            if watch_s is None:
                raise typer.Exit(exits.FAILURE if reasons else exits.OK)
        time.sleep(watch_s)


def _show(found: "Status", reasons: list[str], as_json: bool, clear: bool) -> None:
    if as_json:
        import msgspec

        print(msgspec.json.encode(msgspec.to_builtins(found) | {"reasons": reasons}).decode(), flush=True)
        return
    from rich.console import Console

    from clipper_agents.cli.status_view import show

    console = Console()
    if clear and console.is_terminal:
        console.clear()
    show(console, found, reasons)
