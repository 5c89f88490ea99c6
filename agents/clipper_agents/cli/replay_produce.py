"""`clipper-stream replay produce`: sends logged queries and feedback again."""

import asyncio
import json
import re
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clipper_agents import exits
from clipper_agents.cli.deployment import DeploymentContext, with_deployment
from clipper_agents.cli.options import Json, Yes, since_ms
from clipper_agents.cli.terminal import progress, say

if TYPE_CHECKING:
    from clipper_agents.kafka.reader import Range
    from clipper_agents.replay.merged_log import TimeRange
    from clipper_agents.replay.rerun import Kind, RerunPlan
    from clipper_agents.replay.resend import RerunSummary

_SHOWN = 64
"""Of a progress bar: an update every so many records."""


@with_deployment
def produce(
    deployment: DeploymentContext,
    *,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From here on: 30m, 2h, 7d ago, or 2026-01-31T12:00:00.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Up to here; absent: up to now.")] = None,
    offsets: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOPIC/PARTITION=FIRST:END",
            help="Instead of times, for example queries/0=100:200, without the last; repeatable.",
        ),
    ] = None,
    topic: Annotated[
        Literal["queries", "feedback", "both"], typer.Option(help="What to send: queries, feedback or both.")
    ] = "both",
    application: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only of this application; repeatable.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="PREFIX", help="Topic prefix of the target; absent: that of the source.")
    ] = None,
    bootstrap_to: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Kafka of the target; absent: that of the source.")
    ] = None,
    ids: Annotated[
        Literal["same", "new"], typer.Option(help="same: queries keep their ids; new: they get new ones of this run.")
    ] = "new",
    speed: Annotated[
        str, typer.Option(metavar="N", help="So many times faster than it was logged; max: as fast as possible.")
    ] = "1",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Send logged queries, and the feedback about them, again: to this deployment or another one.

    Ends with code 1 when a record was not taken, and with 130 after Ctrl-C; the summary says what was sent, and with
    which --offsets a run that did not reach its end goes on.
    """
    from clipper_agents.replay.rerun import RerunEndpoint, RerunPlan, same_deployment
    from clipper_agents.replay.resend import RerunSummary
    from clipper_agents.replay.run_ids import NewIds, new_run, same_id

    kafka, run = deployment.kafka, new_run()
    source = RerunEndpoint(kafka=kafka, prefix=deployment.prefix)
    target = RerunEndpoint(kafka=replace(kafka, bootstrap=bootstrap_to or kafka.bootstrap), prefix=to or source.prefix)
    plan = RerunPlan(
        source=source,
        target=target,
        kinds=("queries", "feedback") if topic == "both" else (topic,),
        wanted=wanted(since, until, offsets, time.time()),
        applications=tuple(application or ()),
        ids=NewIds(run) if ids == "new" else same_id,
        speed=speed_of(speed),
        dry=dry_run,
    )
    if ids == "same" and not yes and not dry_run and asyncio.run(same_deployment(source, target)):
        typer.confirm(f"Send the same ids to {source.prefix} again? Queries of the last hour are not new.", abort=True)
    summary = RerunSummary(interrupted=True)
    try:
        _run(plan, summary)
    finally:
        if summary.unread or not summary.interrupted:
            _show(summary, plan, run if ids == "new" else None, as_json=as_json)
    if summary.interrupted:
        raise typer.Exit(exits.INTERRUPTED)
    if summary.failed:
        raise typer.Exit(exits.FAILURE)


def speed_of(text: str) -> float | None:
    """Parse `--speed`; None for `max`.

    >>> speed_of("10"), speed_of("max")
    (10.0, None)

    Raises:
        BadParameter: it is neither `max` nor a number above 0.
    """
    if text == "max":
        return None
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text) or float(text) <= 0:
        raise typer.BadParameter(f"--speed {text}: write max, or a number above 0 such as 1, 0.5 or 10")
    return float(text)


def wanted(
    since: str | None, until: str | None, offsets: list[str] | None, now_s: float
) -> "TimeRange | dict[tuple[Kind, int], Range]":
    """Return the range that the options name.

    Raises:
        BadParameter: none of both, both, or one that is empty or cannot be read.
    """
    from clipper_agents.replay.merged_log import TimeRange

    if offsets:
        if since is not None or until is not None:
            raise typer.BadParameter("--offsets and --since or --until name different ranges: leave one of them out")
        return dict(_range(text) for text in offsets)
    if since is None:
        raise typer.BadParameter("say from when on with --since, for example --since 1h, or give --offsets")
    times = TimeRange(
        since_ms=since_ms(since, now_s), until_ms=None if until is None else since_ms(until, now_s, option="--until")
    )
    if times.until_ms is not None and times.until_ms <= times.since_ms:
        raise typer.BadParameter(f"--until {until} is not later than --since {since}: the range is empty")
    return times


def _range(text: str) -> "tuple[tuple[Kind, int], Range]":
    from clipper_agents.kafka.reader import Range

    found = re.fullmatch(r"(queries|feedback)/(\d{1,9})=(\d{1,18}):(\d{1,18})", text)
    if found is None or int(found[3]) >= int(found[4]):
        raise typer.BadParameter(f"--offsets {text}: write queries/0=100:200 or feedback/0=100:200, the end behind it")
    kind: Kind = "queries" if found[1] == "queries" else "feedback"
    return (kind, int(found[2])), Range(int(found[3]), int(found[4]))


def _run(plan: "RerunPlan", summary: "RerunSummary") -> None:
    from clipper_agents.replay.rerun import rerun

    async def run() -> None:
        stop, task = asyncio.Event(), asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, _told, stop, task)
        with progress("counting" if plan.dry else "sending") as update:
            await rerun(plan, stop, summary, _Bar(update))

    try:
        asyncio.run(run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _told(stop: asyncio.Event, task: "asyncio.Task[Any] | None") -> None:
    """End when all that was sent is acknowledged; told again, at once: Kafka may be away."""
    if stop.is_set() and task is not None:
        task.cancel()
    stop.set()


class _Bar:
    def __init__(self, update: Callable[..., None]) -> None:
        self._update = update

    def begin(self, offsets: int) -> None:
        self._update(total=offsets)

    def __call__(self, *, read: int, sent: int) -> None:
        if read % _SHOWN == 0:
            self._update(completed=read, counts=f"{read:,} read, {sent:,} sent")


def _show(summary: "RerunSummary", plan: "RerunPlan", run: str | None, *, as_json: bool) -> None:
    figures = figures_of(summary, run=run, dry=plan.dry)
    if as_json:
        say(json.dumps(figures))
        return
    for line in lines_of(figures):
        say(line)


def figures_of(summary: "RerunSummary", *, run: str | None, dry: bool) -> dict[str, Any]:
    """The summary as plain values; pace and lateness are left out where nothing was sent."""
    late = {f"p{percent:g}_ms": summary.lateness.percentile_ms(percent) for percent in (50, 99, 100)}
    pace = {"took_s": summary.took_s, "per_s": summary.rate_per_s, "speed": summary.speed}
    return {
        "run": run,
        "read": summary.read,
        "sent": dict(summary.sent),
        "left_out": dict(summary.left_out),
        "failed": summary.failed,
        "first_failure": summary.first_failure,
        "interrupted": summary.interrupted,
        "unread": offsets_of(summary.unread) if summary.interrupted else [],
        "dry_run": dry,
        "span_s": summary.span_s,
        "pace": None if dry else {name: None if value is None else round(value, 3) for name, value in pace.items()},
        "late": None if late["p50_ms"] is None else late,
    }


def offsets_of(ranges: "Mapping[Any, Range]") -> list[str]:
    """Return the ranges of topic partitions as `--offsets` takes them; those that are empty are left out."""
    left = ((*tp, one) for tp, one in ranges.items() if one.first < one.end)
    return [f"{topic.rpartition('.')[2]}/{number}={one.first}:{one.end}" for topic, number, one in left]


def lines_of(figures: dict[str, Any]) -> list[str]:
    """Return the summary as lines for people."""
    verb, sent = "would be sent" if figures["dry_run"] else "sent", figures["sent"]
    lines = [f"{verb:<9} {sum(sent.values())} of {figures['read']} records, logged within {figures['span_s']:.1f} s"]
    lines += [f"  {topic}: {count}" for topic, count in sorted(sent.items())]
    lines += [f"left out  {_REASONS[reason]}: {count}" for reason, count in sorted(figures["left_out"].items())]
    lines += [f"run       {figures['run']}: the new ids end with it"] if figures["run"] else []
    pace, late = figures["pace"], figures["late"]
    if pace is not None and pace["speed"] is not None:
        lines.append(f"pace      {pace['per_s']:.0f} records/s, {pace['speed']:.3g} times as fast as logged")
    if late is not None:
        lines.append(f"late      {late['p50_ms']} ms (p50), {late['p99_ms']} ms (p99), {late['p100_ms']} ms (most)")
    if figures["failed"]:
        lines.append(f"failed    {figures['failed']} were not taken, first: {figures['first_failure']}")
    if figures["interrupted"]:
        lines.append("interrupted before the end of the range")
        rest = " ".join(f"--offsets {text}" for text in figures["unread"])
        lines += [f"to go on, give in place of the range: {rest}"] if rest else []
    return lines


_REASONS = {
    "empty": "with neither key nor value",
    "restore_marker": "markers of restored weights",
    "other_application": "of other applications",
    "unreadable": "unreadable, so of no application",
    "no_query": "feedback about queries that this run did not send",
    "no_key": "feedback without a key, which has no partition there",
}
