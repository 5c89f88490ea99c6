"""What people see of a run: a bar while it lasts, and its report as a table with warnings."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from clipper_loadgen.report import LoadReport
from clipper_loadgen.run import LoadFollower, LoadRun

UPDATE_S = 0.05
LATE_SHARE = 0.2
"""A sender later than this share of the median latency is worth a warning."""


@contextmanager
def progress_bar(description: str) -> Iterator[LoadFollower]:
    """A bar on stderr while the context lasts; nothing where stderr is no terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None, counts="")

        async def follow(run: LoadRun) -> None:
            ledger = run.ledger
            while True:
                counts = f"{ledger.sent_count:,} sent, {ledger.answered_count:,} answered"
                bar.update(task, completed=ledger.answered_count, total=len(ledger), counts=counts)
                await asyncio.sleep(UPDATE_S)

        yield follow


def report_table(report: LoadReport) -> Table:
    """The report as a table of a name and a value a line."""
    table = Table(title=f"{report.application}, {report.mode}", show_header=False, title_justify="left")
    table.add_column("what", style="bold")
    table.add_column("value", justify="right")
    for name, value in _lines(report):
        table.add_row(name, value)
    return table


def warnings(report: LoadReport) -> list[str]:
    """What makes the numbers doubtful, in sentences."""
    found = []
    median_ms, late_ms = report.latency["p50_ms"], report.late_p99_ms
    if report.mode == "rate" and median_ms and late_ms and late_ms > LATE_SHARE * median_ms:
        found.append(f"the generator was up to {late_ms} ms late (p99): it or the machine was part of the latency")
    if report.send_failures:
        found.append(f"{report.send_failures} batches could not be written, the first: {report.send_failure}")
    if report.missing:
        found.append(f"{report.missing} queries had no answer; percentiles that fall on them are empty")
    return found


def _lines(report: LoadReport) -> list[tuple[str, str]]:
    lines = [
        ("queries sent", f"{report.queries:,}"),
        ("answered", f"{report.answered:,}"),
        ("missing", f"{report.missing:,}"),
        ("duplicate answers", f"{report.duplicates:,}"),
        ("offered", _rate(report.offered_per_s)),
        ("throughput, 5 % to 95 %", _rate(report.throughput_per_s)),
        *((f"latency {name.removesuffix('_ms')}", _ms(value)) for name, value in report.latency.items()),
        ("default outputs", f"{report.default_ratio:.2%}"),
        *((f"  {reason}", f"{count:,}") for reason, count in report.defaults.items()),
        ("distinct inputs", f"{report.distinct_inputs:,}"),
        ("feedback sent", f"{report.feedback_sent:,}"),
        ("feedback not due yet", f"{report.feedback_pending:,}"),
        ("sender late p99", _ms(report.late_p99_ms)),
    ]
    if report.generator_cpu_us is not None:
        lines.append(("generator CPU a query", f"{report.generator_cpu_us:,.0f} µs"))
    return lines


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f} ms"


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} /s"
