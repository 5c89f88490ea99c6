"""`clipper-stream dead-letters`: look at the records that could not be used, and send them once more."""

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipper_agents.cli.deployment import DeploymentContext, with_deployment
from clipper_agents.cli.plain_text import plain, value_lines, when

if TYPE_CHECKING:
    from clipper_agents.dead_letters.reader import DeadLetterReader, Filter, Letter

dead_letters = typer.Typer(
    name="dead-letters", no_args_is_help=True, help="Look at records that could not be used, and send them once more."
)

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
Topic = Annotated[str | None, typer.Option(metavar="TOPIC", help="Only of this topic: feedback, or a whole name.")]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only of this time and later: 30m, 2h, 7d, or 2026-01-31T12:00:00.")
]
ErrorPart = Annotated[
    str | None, typer.Option("--error", metavar="TEXT", help="Only with this in the error's class or message.")
]
Limit = Annotated[int, typer.Option(min=1, metavar="N", help="At most so many, the newest.")]


@dead_letters.command("list", epilog="Example: clipper-stream dead-letters list --topic feedback --since 2h")
@with_deployment
def list_letters(
    deployment: DeploymentContext,
    *,
    topic: Topic = None,
    since: Since = None,
    error: ErrorPart = None,
    limit: Limit = 50,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON a letter instead of a table.")] = False,
) -> None:
    """Print the dead letters, newest first."""
    wanted = _filter(deployment, topic, since, error)

    async def newest() -> list[dict[str, Any]]:
        async with _opened(deployment) as letters:
            found = deque([_row(letter) async for letter in _newest(letters, wanted, limit)])
        return [*reversed(found)]

    rows = asyncio.run(newest())
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
    else:
        _print_table(rows)


@dead_letters.command("show", epilog="Example: clipper-stream dead-letters show 41")
@with_deployment
def show_letter(
    deployment: DeploymentContext,
    position: Annotated[int, typer.Argument(metavar="POSITION", help="As `list` prints it.")],
) -> None:
    """Print everything about one dead letter: where it stood, why it is one, headers, key and value."""

    async def read() -> "Letter":
        async with _opened(deployment) as letters:
            found: Letter = await letters.at(position)
            return found

    for line in _description(asyncio.run(read())):
        typer.echo(line)


@dead_letters.command("replay", epilog="Example: clipper-stream dead-letters replay 41 42 --yes")
@with_deployment
def replay_letters(
    deployment: DeploymentContext,
    positions: Annotated[
        list[int] | None, typer.Argument(metavar="[POSITION]...", help="As `list` prints them.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All that the filters admit.")] = False,
    topic: Topic = None,
    since: Since = None,
    error: ErrorPart = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many, the newest.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Also those that were replayed before.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Send dead letters to their topics and partitions once more, with their keys, values and headers.

    A replayed query is a new query, answered under its query_id if it has one. Ends with code 1 when one was not sent.
    """
    if bool(positions) == every:
        raise typer.BadParameter("give positions, or --all with or without filters")
    if positions and (topic or since or error or limit):
        raise typer.BadParameter("filters choose among --all: leave them out beside positions")
    chosen = positions or _chosen(deployment, _filter(deployment, topic, since, error), limit)
    if not chosen:
        typer.echo("no dead letter to replay")
        return
    if not yes:
        typer.confirm(f"Replay {len(chosen)} dead letters of {deployment.prefix}?", abort=True)
    if not asyncio.run(_replay(deployment, sorted(set(chosen)), again=again)):
        raise typer.Exit(1)


def _chosen(deployment: DeploymentContext, wanted: "Filter", limit: int | None) -> list[int]:
    async def read() -> list[int]:
        async with _opened(deployment) as letters:
            return [letter.position async for letter in _newest(letters, wanted, limit)]

    return asyncio.run(read())


async def _replay(deployment: DeploymentContext, positions: list[int], *, again: bool) -> bool:
    """Replay the letters, and say what became of each; whether none was refused."""
    from clipper_agents.dead_letters.replay import Replayer, in_batches, replaying_producer
    from clipper_agents.dead_letters.replayed_marks import Replayed
    from clipper_agents.kafka.topics import existing_topics

    kafka, catalogue = deployment.kafka, deployment.catalogue
    topics = await existing_topics(kafka, catalogue.prefix)
    sent = left = 0
    async with _opened(deployment) as letters, replaying_producer(kafka) as producer:
        replayer = Replayer(producer, Replayed(kafka, catalogue), catalogue, topics, again=again)
        async for batch in in_batches(_at(letters, positions)):
            for outcome in await replayer.replay(batch):
                done = outcome.sent_to is not None
                sent, left = sent + done, left + (not done)
                typer.echo(f"{outcome.position}: sent to {outcome.sent_to}" if done else _not_sent(outcome))
    typer.echo(f"{sent} replayed, {left} not")
    return left == 0


def _not_sent(outcome: Any) -> str:
    return f"{outcome.position}: not replayed, {plain(outcome.reason)}"


async def _at(letters: "DeadLetterReader", positions: list[int]) -> "AsyncIterator[Letter]":
    for position in positions:
        yield await letters.at(position)


def _opened(deployment: DeploymentContext) -> Any:
    from clipper_agents.dead_letters.reader import opened_letters

    return opened_letters(deployment.kafka, deployment.catalogue)


async def _newest(letters: "DeadLetterReader", wanted: "Filter", limit: int | None) -> "AsyncIterator[Letter]":
    """The newest that are wanted, oldest of them first; without values, of which a topic may be full."""
    from dataclasses import replace

    kept: deque[Letter] = deque(maxlen=limit)
    async for letter in letters.all(wanted):
        kept.append(replace(letter, value=None))
    for letter in kept:
        yield letter


def _filter(deployment: DeploymentContext, topic: str | None, since: str | None, error: str | None) -> "Filter":
    from clipper_agents.dead_letters.reader import Filter

    prefix = f"{deployment.prefix}."
    whole = topic if topic is None or topic.startswith(prefix) else prefix + topic
    return Filter(topic=whole, since_ms=None if since is None else since_ms(since, time.time()), error=error)


def since_ms(text: str, now_s: float, option: str = "--since") -> int:
    """A time as milliseconds since the epoch: so long ago, or a date; without a zone it is that of this machine.

    >>> since_ms("2h", 7_200.0), since_ms("1970-01-01T00:01:00+00:00", 0.0)
    (0, 60000)

    Raises:
        BadParameter: it is neither.
    """
    ago = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if ago is not None:
        return round((now_s - int(ago[1]) * _UNITS_S[ago[2]]) * 1000)
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError) as wrong:
        raise typer.BadParameter(f"{option} {text}: write 30m, 2h, 7d, or a date as 2026-01-31T12:00:00") from wrong


def _row(letter: "Letter") -> dict[str, Any]:
    said = letter.said
    return {
        "position": letter.position,
        "when": when(letter.at_ms),
        "topic": said and said.topic,
        "partition": said and said.partition,
        "offset": said and said.offset,
        "error": said and said.exception.rpartition(".")[2],
        "message": said and said.message,
        "replayed_from": letter.replayed_from,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    columns = ("position", "when", "topic", "partition", "offset", "error", "message")
    for name in columns:
        table.add_column(name, overflow="ellipsis" if name == "message" else "fold", no_wrap=name != "message")
    for row in rows:
        table.add_row(*(Text(plain("" if row[name] is None else str(row[name]))) for name in columns))
    Console(width=None if rows else 80).print(table if rows else "no dead letters")


def _description(letter: "Letter") -> list[str]:
    from clipper_topics.dead_letter import PREFIX

    said = letter.said
    lines = [f"position   {letter.position}", f"when       {when(letter.at_ms)}"]
    if said is None:
        lines.append("this is no dead letter: its headers do not say where it came from")
    else:
        lines += [
            f"topic      {plain(said.topic)}",
            f"partition  {said.partition}",
            f"offset     {said.offset}",
            f"error      {plain(said.exception)}",
            f"message    {plain(said.message)}",
            *([f"cut        {plain(said.cut)}"] if said.cut else []),
        ]
    own = [(name, value) for name, value in letter.headers if not name.startswith(PREFIX)]
    lines += ["headers", *(f"  {plain(name)}: {'(null)' if value is None else _cut(value)}" for name, value in own)]
    lines += ["key", *_indented(value_lines(letter.key)), "value", *_indented(value_lines(letter.value))]
    if said is not None and said.stacktrace:
        lines += ["stack trace", *_indented([plain(line) for line in said.stacktrace.splitlines()])]
    return lines


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _cut(value: bytes) -> str:
    text = plain(value[:200].decode("utf-8", "backslashreplace"))
    return text if len(value) <= 200 else f"{text}... ({len(value)} bytes)"  # noqa: PLR2004 (a line or two)
