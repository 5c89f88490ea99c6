"""`clipper-stream dead-letters`: look at the records that could not be used, and send them once more."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipper_agents.cli.deployment import DeploymentContext, with_deployment
from clipper_agents.cli.options import Json, Yes, since_ms
from clipper_agents.cli.terminal import print_fields, print_records, say
from clipper_agents.status.texts import value_text, when

if TYPE_CHECKING:
    from clipper_agents.dead_letters.reader import Filter, Letter
    from clipper_agents.dead_letters.replay import ReplayOutcome

dead_letters = typer.Typer(
    name="dead-letters", no_args_is_help=True, help="Look at records that could not be used, and send them once more."
)

Topic = Annotated[str | None, typer.Option(metavar="TOPIC", help="Only of this topic: feedback, or a whole name.")]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only of this time and later: 30m, 2h, 7d, or 2026-01-31T12:00:00.")
]
ErrorPart = Annotated[
    str | None, typer.Option("--error", metavar="TEXT", help="Only with this in the error's class or message.")
]


@dead_letters.command("list", epilog="Example: clipper-stream dead-letters list --topic feedback --since 2h")
@with_deployment
def list_letters(
    deployment: DeploymentContext,
    *,
    topic: Topic = None,
    since: Since = None,
    error: ErrorPart = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many, the newest.")] = 50,
    as_json: Json = False,
) -> None:
    """Print the dead letters, newest first."""
    found = asyncio.run(_newest(deployment, _filter(deployment, topic, since, error), limit))
    records = [record_of(letter) for letter in reversed(found)]
    row_of = partial(letter_row, deployment.catalogue.prefix)
    print_records(records, row_of, as_json=as_json, otherwise="no dead letters")


@dead_letters.command("show", epilog="Example: clipper-stream dead-letters show 41")
@with_deployment
def show_letter(
    deployment: DeploymentContext,
    position: Annotated[int, typer.Argument(metavar="POSITION", help="As `list` prints it.")],
) -> None:
    """Print everything about one dead letter: where it stood, why it is one, its own headers, key and value."""
    from clipper_agents.dead_letters.reader import opened_letters
    from clipper_topics.dead_letter import PREFIX

    async def read() -> "Letter":
        async with opened_letters(deployment.kafka, deployment.catalogue) as letters:
            return await letters.at(position)

    letter = asyncio.run(read())
    cut = {"cut": letter.said and letter.said.cut}
    record = {name: str(value) for name, value in (record_of(letter) | cut).items() if value is not None}
    headers = {f"header {name}": value_text(value) for name, value in letter.headers if not name.startswith(PREFIX)}
    print_fields(record | headers | {"key": value_text(letter.key), "value": value_text(letter.value)})


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
    first: Annotated[int, typer.Option("--from", min=0, metavar="POSITION", help="Only from here on.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many, the newest.")] = None,
    yes: Yes = False,
) -> None:
    """Send dead letters to their topics and partitions once more, with their keys, values and headers.

    A replayed query is a new query, answered under its query_id if it has one; whoever replays a letter twice sends it
    twice. Ends with code 1 when one was not sent.
    """
    if bool(positions) == every:
        raise typer.BadParameter("give positions, or --all with or without filters")
    if positions and (topic or since or error or first or limit):
        raise typer.BadParameter("filters choose among --all: leave them out beside positions")
    if not positions:
        found = asyncio.run(_newest(deployment, _filter(deployment, topic, since, error, first), limit))
    chosen = positions or [letter.position for letter in found]
    if not chosen:
        say("no dead letter to replay")
        return
    if not yes:
        typer.confirm(f"Replay {len(chosen)} dead letters of {deployment.catalogue.prefix}?", abort=True)
    if not asyncio.run(_replay(deployment, sorted(set(chosen)))):
        raise typer.Exit(1)


async def _replay(deployment: DeploymentContext, positions: list[int]) -> bool:
    from clipper_agents.dead_letters.replay import replay_letters

    became: list[ReplayOutcome] = []
    try:
        async for outcomes in replay_letters(deployment.kafka, deployment.catalogue, positions):
            say(*(f"{one.position}: {one.text}" for one in outcomes))
            became += outcomes
    finally:
        say(*_summary(became, positions))
    return all(one.sent_to for one in became)


def _summary(became: "Sequence[ReplayOutcome]", positions: Sequence[int]) -> list[str]:
    sent = sum(one.sent_to is not None for one in became)
    lines, rest = [f"{sent} replayed, {len(became) - sent} not"], positions[len(became) :]
    if rest:
        lines.append(f"broken off before position {rest[0]}: go on with --all --from {rest[0]}")
    return lines


async def _newest(deployment: DeploymentContext, wanted: "Filter", limit: int | None) -> "list[Letter]":
    """The newest that are wanted, oldest of them first; without values, of which a topic may be full."""
    from clipper_agents.dead_letters.reader import opened_letters

    kept: deque[Letter] = deque(maxlen=limit)
    async with opened_letters(deployment.kafka, deployment.catalogue) as letters:
        async for letter in letters.all(wanted):
            kept.append(replace(letter, value=None))
    return [*kept]


def _filter(
    deployment: DeploymentContext, topic: str | None, since: str | None, error: str | None, first: int = 0
) -> "Filter":
    from clipper_agents.dead_letters.reader import Filter

    prefix = f"{deployment.catalogue.prefix}."
    whole = topic if topic is None or topic.startswith(prefix) else prefix + topic
    at_ms = None if since is None else since_ms(since, time.time())
    return Filter(topic=whole, since_ms=at_ms, error=error, first=first)


def record_of(letter: "Letter") -> dict[str, Any]:
    """A letter for machines."""
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


def letter_row(prefix: str, record: dict[str, Any]) -> dict[str, str]:
    """A letter of a deployment with this prefix, whose message has room."""
    row = {"position": str(record["position"]), "when": record["when"], "record": "", "message": ""}
    if record["topic"] is not None:
        row["record"] = f"{record['topic'].removeprefix(f'{prefix}.')}[{record['partition']}]@{record['offset']}"
        row["message"] = f"{record['error']}: {record['message']}"
    return row
