"""How far a run is: a callback for the driver, a bar on stderr for people."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressSink(Protocol):
    """Told a few times a second how far the run is."""

    def __call__(self, *, sent: int, answered: int, total: int) -> None:
        """Queries sent and answered so far, of how many."""
        ...


@contextmanager
def progress_bar(description: str) -> Iterator[ProgressSink]:
    """A bar on stderr while the context lasts; nothing where stderr is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None, counts="")

        def update(*, sent: int, answered: int, total: int) -> None:
            bar.update(task, completed=answered, total=total, counts=f"{sent:,} sent, {answered:,} answered")

        yield update
