"""`clipper-stream replay verify`: is the selection table what the logs lead to?"""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from clipper_agents import exits
from clipper_agents.cli.deployment import DeploymentContext, with_deployment
from clipper_agents.cli.options import Json
from clipper_agents.cli.terminal import console, print_json, table

CHECK = "replay verify"
"""Stands for the name of a process, which has no blank."""
TOLD_WITHIN_S = 3.0

if TYPE_CHECKING:
    from clipper_agents.replay.verdicts import RowMismatch, ShownRow, Verification


@with_deployment
def verify(
    deployment: DeploymentContext,
    application: Annotated[
        str | None, typer.Argument(metavar="[APPLICATION]", help="Compare its rows alone; absent: all.")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Fold the whole logs once more and compare with the stored selection table, bit for bit.

    Ends with exit code 0 when they are equal, and with 1 when not; `status` says so then, until all are equal again,
    if this user may write to the topic of hosts. The table may be in use.
    """
    from clipper_agents.replay.log_ranges import open_logs
    from clipper_agents.replay.verify import verify as verify_table

    async def verified() -> "Verification":
        catalogue, horizon_s = deployment.catalogue, deployment.settings.router.horizon_s
        return await verify_table(await open_logs(deployment.kafka, catalogue), catalogue, horizon_s, application)

    found = asyncio.run(verified())
    if application is None or not found.equal:
        _tell(deployment, found)
    print_json(found) if as_json else print_verification(found)
    if not found.equal:
        raise typer.Exit(exits.FAILURE)


def _tell(deployment: DeploymentContext, found: "Verification") -> None:
    """Leave a word for `status`."""
    from clipper_agents.control.host_reports import HostReports
    from clipper_topics.host_report import HostReport

    reports = HostReports(deployment.kafka, deployment.catalogue.hosts)
    if found.equal:
        reports.withdraw("", CHECK)
    else:
        count = sum(len(one.partings) for one in found.partitions)
        problem = f"{count} rows of the selection table differ from the logs: `clipper-stream replay verify` names them"
        reports.put(HostReport(model="", instance=CHECK, state="failed", problems=[problem]))
    reports.close(TOLD_WITHIN_S)


def print_verification(found: "Verification") -> None:
    """A table of the partitions, what could not be verified, what differs, and the verdict."""
    headings = ("partition", "position", "behind", "feedbacks", "rows", "differ")
    rows = []
    for one in found.partitions:
        numbers = (one.position, one.behind, one.feedbacks, one.rows, len(one.partings))
        rows.append((str(one.partition), *(f"{number:,}" for number in numbers)))
    shown = console()
    shown.print(table(headings, rows, right=headings), soft_wrap=True)
    for one in found.partitions:
        for application in one.unlogged:
            shown.print(
                f"partition {one.partition}: rows of {application} cannot be verified: its policy or loss changed "
                "more often than the table keeps",
                soft_wrap=True,
            )
        for parting in one.partings:
            shown.print(f"{_row_name(parting)} in partition {parting.partition} differs", soft_wrap=True)
            shown.print(f"  table: {_totals(parting.table)}", soft_wrap=True)
            shown.print(f"  logs:  {_totals(parting.logs)}", soft_wrap=True)
    verdict = "equal" if found.equal else f"{len(found.partings):,} rows differ"
    of = f"{found.rows:,} rows of {found.feedbacks:,} feedbacks in {len(found.partitions)} partitions"
    shown.print(f"{verdict}: {of}, {found.seconds:.1f} s", soft_wrap=True)


def _row_name(parting: "RowMismatch") -> str:
    if parting.application:
        context = "" if parting.context is None else f" in context {parting.context}"
        return f"row of {parting.application}{context}"
    return "position" if parting.context is None else f"newest restore of {parting.context}"


def _totals(row: "ShownRow | None") -> str:
    if row is None:
        return "no such row"
    sums = "; ".join(
        f"{model} " + " ".join(f"{name}={value!r}" for name, value in totals.items())
        for model, totals in row.totals.items()
    )
    return f"offset {row.offset}, {row.applied} counted; {sums or 'no totals'}"
