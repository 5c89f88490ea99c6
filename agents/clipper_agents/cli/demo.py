"""`clipper-stream demo`: everything at once, on this machine, in two minutes."""

import asyncio
import os
import signal
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from clipper_agents.cli import terminal
from clipper_agents.cli.extras import require_extra

if TYPE_CHECKING:
    from rich.console import Console

    from clipper_agents.demo.plan import DemoPlan
    from clipper_agents.demo.result import DemoResult
    from clipper_agents.demo.run_recorder import DemoRecorder

LOG = "processes.log"


def demo(
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result here too.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the report.")] = Path("demo-report"),
    queries: Annotated[int, typer.Option(help="Queries to both applications together.")] = 20_000,
    rate: Annotated[
        float, typer.Option(metavar="Q/S", help="Queries a second, where the machine can carry them.")
    ] = 250.0,
    seed: Annotated[int, typer.Option(min=0, help="Seeds data, models, traffic and decisions.")] = 0,
    open_console: Annotated[bool, typer.Option("--open", help="Open the console in the browser.")] = False,
) -> None:
    """Five models, two policies and a failure, on a real Kafka (embedded unless KAFKA_BOOTSTRAP_SERVERS is set).

    The best model breaks at a quarter of the queries and is repaired at half. The line `console: URL` says where that
    can be watched in a browser. Ends with exit code 0 when every query was answered once, every feedback counted once,
    and all offsets are committed.
    """
    from clipper_agents.observability.logging import log_file
    from clipper_agents.threads import ONE_THREAD

    require_extra("demo", "sklearn", "skops", "matplotlib")
    os.environ.update(ONE_THREAD)  # before numpy is imported, which reads it then
    from clipper_agents.demo.plan import DemoPlan

    plan, console = DemoPlan(queries=queries, rate_per_s=rate, seed=seed), terminal.console()
    out.mkdir(parents=True, exist_ok=True)
    with log_file(out / LOG, "info", os.environ) as lines:
        result, recorder = _run(plan, console, lines, open_console=open_console)
        _report(result, recorder, console, out, json_file)


def _run(
    plan: "DemoPlan", console: "Console", lines: IO[str], *, open_console: bool
) -> "tuple[DemoResult, DemoRecorder]":
    from clipper_agents.demo.run import run_demo
    from clipper_agents.demo.view import DemoView

    async def run() -> "tuple[DemoResult, DemoRecorder]":
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        view = DemoView(console, plan, open_console=open_console)
        return await run_demo(plan, os.environ, view, lambda line: print(line, file=lines))

    try:
        return asyncio.run(run())
    except asyncio.CancelledError as ended:  # SIGTERM ends it as Ctrl-C does
        raise KeyboardInterrupt from ended


def _report(
    result: "DemoResult", recorder: "DemoRecorder", console: "Console", out: Path, json_file: Path | None
) -> None:
    from clipper_agents import exits
    from clipper_agents.demo.report import print_summary, write_json, write_report
    from clipper_agents.demo.result import problems

    failed = problems(result)
    if json_file is not None:
        write_json(result, json_file)
    page = write_report(result, recorder, failed, out)
    print_summary(console, result, failed)
    console.print(f"report: {page.resolve()}", soft_wrap=True)
    if failed:
        raise typer.Exit(exits.FAILURE)
