"""Options of the commands that read a part of the logs, and the bar that shows how far they are."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from clipper_agents.cli.dead_letters import since_ms

if TYPE_CHECKING:
    from clipper_agents.replay.span import Span

Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Decisions from here on: 30m, 2h, 7d ago, or 2026-01-31T12:00:00Z; else all."),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Decisions before this; absent: up to now.")]
Offsets = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PARTITION=FIRST:END",
        help="Instead of times: predictions of a partition, without END, as 0=100:200 or 0=100:; repeatable.",
    ),
]
Horizon = Annotated[
    str | None,
    typer.Option(metavar="DURATION", help="Feedback counts so long after its prediction; absent: as for the routers."),
]
Processes = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Partitions that are read at once; absent: one a processor.")
]
_OFFSETS = re.compile(r"(\d{1,6})=(\d{0,18}):(\d{0,18})")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def span_from(
    since: str | None, until: str | None, offsets: list[str] | None, horizon: str | None, default_horizon_s: float
) -> "Span":
    """The part of the logs that the options say.

    Raises:
        BadParameter: a time, a duration or offsets that cannot be read.
        EmptySpan: it ends before it begins.
    """
    from clipper_agents.replay.span import Span

    now_s = time.time()
    return Span(
        since_ms=None if since is None else since_ms(since.removeprefix("-"), now_s),
        until_ms=None if until is None else since_ms(until.removeprefix("-"), now_s),
        offsets=dict(map(_range, offsets or ())),
        horizon_s=default_horizon_s if horizon is None else _seconds(horizon),
    )


def _range(text: str) -> tuple[int, tuple[int | None, int | None]]:
    """Parse PARTITION=FIRST:END.

    >>> _range("0=100:"), _range("3=:7")
    ((0, (100, None)), (3, (None, 7)))
    """
    found = _OFFSETS.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"--offsets {text}: write PARTITION=FIRST:END, for example 0=100:200 or 0=100:")
    partition, first, end = found.groups()
    return int(partition), (int(first) if first else None, int(end) if end else None)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found is None:
        raise typer.BadParameter(f"--horizon {text}: write 90s, 30m, 2h or 7d")
    return float(int(found[1]) * _SECONDS[found[2]])


@contextmanager
def reading_bar(description: str) -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """A bar on standard error while the block lasts; nothing where it is no terminal.

    Yields:
        A function that takes how many records there are, and one that is told how many more were read.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None)
        yield lambda total: bar.update(task, total=total), lambda more: bar.advance(task, more)
