"""`clipper-stream replay produce`: sends logged queries and feedback again."""

import asyncio
import math
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from clipper_agents import exits
from clipper_agents.cli.deployment import DeploymentContext, with_deployment
from clipper_agents.cli.options import Json, Until, span_from
from clipper_agents.cli.terminal import print_json, progress, say
from clipper_agents.status.texts import when

if TYPE_CHECKING:
    from clipper_agents.replay.rerun import RerunPlan, RerunSummary

_SHOWN = 64
"""The progress bar is updated every so many records."""


@with_deployment
def produce(
    deployment: DeploymentContext,
    *,
    since: Annotated[str, typer.Option(metavar="TIME", help="From here on: 30m, 2h, 7d ago, or 2026-01-31T12:00:00.")],
    until: Until = None,
    to: Annotated[str, typer.Option(metavar="PREFIX", help="Topic prefix of the target, which may be the source.")],
    bootstrap_to: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Kafka of the target; absent: that of the source.")
    ] = None,
    application: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only of this application; repeatable.")
    ] = None,
    speed: Annotated[
        float, typer.Option(min=0, metavar="N", help="So many times faster than it was logged; 0: as fast as possible.")
    ] = 1.0,
    as_json: Json = False,
) -> None:
    """Send the queries of a range of time, and the feedback about them, again, under new ids.

    Ends with code 1 when a record was not taken, and with 130 after Ctrl-C; the summary says how far it came.
    """
    from clipper_agents.replay.rerun import RerunEndpoint, RerunPlan, RerunSummary

    if math.isnan(speed):
        raise typer.BadParameter("nan is no number of times", param_hint="--speed")
    kafka = deployment.kafka
    plan = RerunPlan(
        source=RerunEndpoint(kafka=kafka, prefix=deployment.catalogue.prefix),
        target=RerunEndpoint(kafka=replace(kafka, bootstrap=bootstrap_to or kafka.bootstrap), prefix=to),
        span=span_from(since, until),
        applications=tuple(application or ()),
        speed=speed,
    )
    summary = RerunSummary(run=f"r{uuid.uuid4().hex[:12]}")
    try:
        _run(plan, summary)
    except BaseException:
        if summary.read:
            _show(summary, as_json=as_json)
        raise
    _show(summary, as_json=as_json)
    if not summary.complete:
        raise typer.Exit(exits.INTERRUPTED)
    if summary.failed:
        raise typer.Exit(exits.FAILURE)


def _run(plan: "RerunPlan", summary: "RerunSummary") -> None:
    from clipper_agents.replay.rerun import rerun

    async def run() -> None:
        stop = asyncio.Event()
        exits.end_on_signals(stop.set, lambda: "brokers acknowledge what was sent, if one answers")
        with progress("sending") as update:

            def show(total: int) -> None:
                if summary.read % _SHOWN == 0:
                    update(total=total, completed=summary.read, counts=f"{summary.sent.total():,} sent")

            await rerun(plan, summary, stop, show)

    asyncio.run(run())


def _show(summary: "RerunSummary", *, as_json: bool) -> None:
    print_json(summary) if as_json else say(*lines_of(summary))


def lines_of(summary: "RerunSummary") -> list[str]:
    """Return the summary as lines for people."""
    span_s = 0.0 if summary.first_ms is None else (summary.last_ms - summary.first_ms) / 1000
    sent, took_s = summary.sent.total(), summary.took_s
    lines = [f"sent      {sent} of {summary.read} records, logged within {span_s:.1f} s"]
    lines += [f"  {topic}: {count}" for topic, count in sorted(summary.sent.items())]
    lines += [f"left out  {_REASONS[reason]}: {count}" for reason, count in sorted(summary.left_out.items())]
    lines += [f"run       {summary.run}: the new ids end with it"]
    if took_s > 0:
        lines.append(f"pace      {sent / took_s:.0f} records/s, {span_s / took_s:.3g} times as fast as logged")
    if summary.failed:
        lines.append(f"failed    {summary.failed} were not taken, first: {summary.first_failure}")
    if not summary.complete:
        upto = f", after what was logged up to {when(summary.last_ms)}" if sent else ""
        lines.append(f"interrupted before the end of the range{upto}")
    return lines


_REASONS = {
    "unreadable": "unreadable, so without an id to replace",
    "other_application": "of other applications",
    "restore_marker": "markers of restored weights",
    "no_query": "feedback about queries that this run did not send",
}
