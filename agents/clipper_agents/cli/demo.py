"""`clipper-stream demo`: everything at once, on this machine, in two minutes."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipper_agents import exits
from clipper_agents.cli import terminal
from clipper_agents.cli.options import require_extra
from clipper_agents.demo import LEAST_QUERIES

if TYPE_CHECKING:
    from clipper_agents.demo.scenario import DemoResult

LOG, PICTURE = "processes.log", "errors.png"


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the picture and the log.")] = Path("demo-report"),
    queries: Annotated[
        int | None, typer.Option(min=LEAST_QUERIES, help="Queries to both applications together. Absent: 80 seconds.")
    ] = None,
    rate: Annotated[
        float, typer.Option(min=1, metavar="Q/S", help="Most queries a second; fewer where the machine is slow.")
    ] = 250.0,
    seed: Annotated[int, typer.Option(min=0, help="Seeds data, models, traffic and decisions.")] = 0,
    open_console: Annotated[bool, typer.Option("--open", help="Open the console in the browser.")] = False,
) -> None:
    """Five models, two policies and a failure, on a real Kafka (embedded unless KAFKA_BOOTSTRAP_SERVERS is set).

    The best model breaks at a quarter of the queries and is repaired at half. The line `console: URL` says where that
    can be watched in a browser. What the machine answers is measured first, and less is sent where it is slow. Ends
    with exit code 0 when every query was answered once, every feedback counted once, all offsets are committed, and
    the policies left the broken model; with 1 when not, or when one answer in twenty was a default, and says why.
    """
    from clipper_agents.observability.logging import LogOptions
    from clipper_agents.threads import ONE_THREAD

    require_extra("demo", "sklearn", "skops", "matplotlib")
    os.environ.update(ONE_THREAD)  # before numpy is imported, which reads it then
    from clipper_agents.demo.run import run_demo

    out.mkdir(parents=True, exist_ok=True)
    lines = (out / LOG).open("w", encoding="utf-8", buffering=1)  # the logs' until the process ends
    LogOptions("info").configure(os.environ, lines)

    async def run() -> "DemoResult":
        task = asyncio.current_task()
        assert task is not None
        exits.end_on_signals(task.cancel, lambda: "the processes and topics of the demo go", tell=terminal.say)
        return await run_demo(queries, rate, seed, os.environ, terminal.say, lines, opens_console=open_console)

    try:
        result = asyncio.run(run())
    except asyncio.CancelledError as ended:
        raise KeyboardInterrupt from ended
    report(result, out / PICTURE)


def report(result: "DemoResult", picture: Path) -> None:
    """Print the errors by phase and the numbers of a run, and draw its picture."""
    from clipper_agents.demo.scenario import PHASES

    picture.write_bytes(result.picture())
    errors = terminal.TextTable(["errors in %", *PHASES], [*result.error_rows()], right=PHASES)
    terminal.console().print(errors)
    terminal.say(*result.load.lines())
    findings = [*result.findings()]
    terminal.say(*(f"{name}: {value}" for name, value, _ in findings), f"picture: {picture.resolve()}")
    if failed := [f"FAILED {name}: {value}" for name, value, is_kept in findings if not is_kept]:
        terminal.say(*failed)
        raise typer.Exit(exits.FAILURE)
