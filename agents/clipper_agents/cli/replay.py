"""`clipper-stream replay`: logged traffic is verified, written to a file, and given to another model."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipper_agents import exits
from clipper_agents.cli.deployment import DeploymentContext, with_deployment
from clipper_agents.cli.options import (
    ApplicationName,
    Dtype,
    Horizon,
    Json,
    Parameters,
    Runtime,
    Shape,
    Since,
    Until,
    parameters_of,
    require_extra,
    shape_of,
    span_from,
)
from clipper_agents.cli.replay_evaluate import evaluate, read_decisions
from clipper_agents.cli.replay_nightly import learn, nightly
from clipper_agents.cli.replay_produce import produce
from clipper_agents.cli.terminal import TextTable, console, print_json, progress, say

if TYPE_CHECKING:
    from clipper_agents.replay.verdicts import RowMismatch, ShownRow, Verification

replay = typer.Typer(
    name="replay",
    no_args_is_help=True,
    help="Use logged traffic again: verify, export, score, evaluate, learn, produce; what to try, each night.",
)
SCORE_EXAMPLE = (
    "Example: clipper-stream replay score digits.parquet --model svm:2 --uri models/svm-2.skops --shape 64 "
    "--out svm-2.parquet"
)
CHECK = "replay verify"
"""Stands for the name of a process, which has no blank."""
TOLD_WITHIN_S = 3.0


@replay.command(epilog="Example: clipper-stream replay verify --json")
@with_deployment
def verify(
    deployment: DeploymentContext,
    as_json: Json = False,
) -> None:
    """Fold the whole logs once more and compare with the stored selection table, bit for bit.

    Ends with exit code 0 when they are equal, and with 1 when not; `status` says so then, until all are equal again,
    if this user may write to the topic of hosts. The table may be in use.
    """
    from clipper_agents.replay.verify import verify as verify_table

    horizon_s = deployment.settings.router.horizon_s
    found = asyncio.run(verify_table(deployment.kafka, deployment.catalogue, horizon_s))
    _tell(deployment, found)
    print_json(found) if as_json else print_verification(found)
    if not found.equal:
        raise typer.Exit(exits.FAILURE)


def _tell(deployment: DeploymentContext, found: "Verification") -> None:
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
    console().print(TextTable(headings, rows, right=headings))
    for one in found.partitions:
        for application in one.unlogged:
            say(
                f"partition {one.partition}: rows of {application} cannot be verified: its policy or loss changed "
                "more often than the table keeps"
            )
        for parting in one.partings:
            say(f"{_row_name(parting)} in partition {parting.partition} differs")
            say(f"  table: {_totals(parting.table)}", f"  logs:  {_totals(parting.logs)}")
    verdict = "equal" if found.equal else f"{len(found.partings):,} rows differ"
    of = f"{found.rows:,} rows of {found.feedbacks:,} feedbacks in {len(found.partitions)} partitions"
    say(f"{verdict}: {of}, {found.seconds:.1f} s")


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


@replay.command(epilog="Example: clipper-stream replay export digits --since 2h --out digits.parquet")
@with_deployment
def export(
    deployment: DeploymentContext,
    application: ApplicationName,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file .parquet to write; it must be new.")],
    since: Since = None,
    until: Until = None,
    horizon: Horizon = None,
    inputs: Annotated[bool, typer.Option("--inputs", help="With the queries' inputs, as JSON.")] = False,
    as_json: Json = False,
) -> None:
    """Write decisions, what models said and what was true to Parquet; the columns are in reference/replay-files.md.

    The file is there when all was read, and not before.
    """
    require_extra("replay", "duckdb", "pyarrow")
    span = span_from(since, until, horizon, deployment.settings.router.horizon_s)
    facts = read_decisions(deployment, application, span, out, inputs=inputs)
    summary: dict[str, Any] = {"file": str(out), "application": application, "models": facts.models, **facts.counts}
    if as_json:
        print_json(summary)
        return
    say(f"{out}: {application}, {', '.join(facts.models) or 'no model'}")
    for name, count in facts.counts.items():
        if count or name in ("decisions", "with_feedback"):
            say(f"{count:>12,} {name.replace('_', ' ')}")


@replay.command(epilog=SCORE_EXAMPLE)
def score(
    inputs: Annotated[Path, typer.Argument(metavar="INPUTS", help="What `replay export --inputs` wrote.")],
    *,
    model: Annotated[str, typer.Option(metavar="NAME:VERSION", help="How the model is called in the evaluation.")],
    uri: Annotated[
        str,
        typer.Option(
            metavar="TARGET",
            help="package.module:attribute, a model file, a server's URL, or a configuration (.toml) that has it.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file .parquet to write.")],
    runtime: Runtime = None,
    dtype: Dtype = None,
    shape: Shape = None,
    parameters: Parameters = None,
    as_json: Json = False,
) -> None:
    """Run a model over logged inputs, chunk by chunk; a run that is broken off begins anew.

    A row on which the model fails has no output, and counts as a loss of 1.
    """
    require_extra("replay", "pyarrow")
    import msgspec

    from clipper_agents.cli.model_target import read_target
    from clipper_agents.replay.answer_files import score_inputs

    if not all(model.partition(":")):
        raise typer.BadParameter(f"--model {model}: write NAME:VERSION, as svm:2")
    stated = {"runtime": runtime, "dtype": dtype, "shape": shape_of(shape), "parameters": parameters_of(parameters)}
    target, files = read_target(uri, model, stated)
    name, _, version = model.partition(":")
    named = msgspec.structs.replace(target, name=name, version=version)
    with progress(model) as update:

        def told(done: int, of: int) -> None:
            update(completed=done, total=of)

        queries, failed = score_inputs(inputs, named, out, files=files, told=told)
    if as_json:
        print_json({"file": str(out), "model": model, "queries": queries, "failed": failed})
        return
    say(f"{out}: {model} to {queries:,} queries, {failed:,} of them with a row that failed")


EVALUATE_EXAMPLE = (
    "Example: clipper-stream replay evaluate digits --since 1d --candidate thompson --candidate svm:1 "
    "--report digits.html"
)
replay.command(epilog=EVALUATE_EXAMPLE)(evaluate)
replay.command(epilog="Example: clipper-stream replay nightly --out nightly")(nightly)
replay.command(epilog="Example: clipper-stream replay learn digits --policy lin_ucb --out nightly")(learn)
replay.command(epilog="Example: clipper-stream replay produce --since 1h --to staging --speed 10")(produce)
