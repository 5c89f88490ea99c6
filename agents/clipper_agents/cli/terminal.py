"""What commands write: lines, tables, JSON and bars, with the texts of other people as a terminal does not obey them.

Rules of this file:
- Commands write by `say`, `print_json`, `console` and `progress` alone, which escape whatever they are given.
"""

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from operator import gt
from typing import TYPE_CHECKING, Any

from clipper_stream.errors import plain

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text

FOLDED_WIDTH = 16
"""Of a column that is narrowed before others: less is hard to read."""


def say(*lines: str, stderr: bool = False) -> None:
    """Print lines."""
    print(*map(plain, lines), sep="\n", file=sys.stderr if stderr else sys.stdout, flush=True)


@dataclass(frozen=True)
class TextTable:
    """A table without lines; where it is too wide, its cells are folded, and never its headings.

    A page of `status` has a table an application, and rich's own takes three times as long.

    Attributes:
        headings: Of the columns.
        rows: Cells; a row may have fewer than there are columns.
        right: Columns that are aligned at their right side.
        wrapped: Columns that are narrowed first.
    """

    headings: Sequence[str]
    rows: "Sequence[Sequence[Text]]"
    right: Collection[str]
    wrapped: Collection[str]

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Segment]":
        from rich.segment import Segment
        from rich.text import Text

        least = [*map(len, self.headings)]
        cells = [(low, *(row[at].cell_len for row in self.rows if at < len(row))) for at, low in enumerate(least)]
        first = [name in self.wrapped for name in self.headings]
        gap, widths = _fitted([*map(max, cells)], least, first, options.max_width)
        for row in ([Text(name, "bold") for name in self.headings], *self.rows):
            columns = [
                [cell] if cell.cell_len <= width else cell.wrap(console, width, overflow="fold")
                for cell, width in zip(row, widths, strict=False)
            ]
            for parts in zip_longest(*columns, fillvalue=Text()):
                before = 0  # blanks, which nothing follows at the end of a line
                for name, part, width in zip(self.headings, parts, widths, strict=False):
                    blanks = width - part.cell_len
                    before += blanks if name in self.right else 0
                    shown = part
                    if part.plain.endswith(" "):
                        shown = part.copy()
                        shown.rstrip()
                    if shown.plain:
                        yield Segment(" " * before)
                        yield from shown.render(console)
                        before = 0
                    before += part.cell_len - shown.cell_len + gap + (0 if name in self.right else blanks)
                yield Segment.line()


def table(
    headings: Iterable[str],
    rows: "Iterable[Iterable[str | Text]]",
    *,
    right: Collection[str] = (),
    wrapped: Collection[str] = (),
) -> TextTable:
    """Return a table of these cells; a string is shown as it is. Arguments are those of `TextTable`."""
    from rich.text import Text

    cells = [[Text(plain(cell)) if isinstance(cell, str) else cell for cell in row] for row in rows]
    return TextTable([*headings], cells, right, wrapped)


def _fitted(widths: list[int], least: list[int], first: list[bool], room: int) -> tuple[int, list[int]]:
    """Return the blanks between columns, and widths of at least the headings'; `first` says which are narrowed first.

    >>> _fitted([4, 9, 90], [4, 7, 7], [False, False, True], 40)
    (2, [4, 9, 23])
    >>> _fitted([4, 9, 90], [4, 7, 7], [False, False, True], 20)
    (1, [4, 7, 7])
    """
    between = len(widths) - 1
    floors = [
        max(low, FOLDED_WIDTH) if is_first else at for at, low, is_first in zip(widths, least, first, strict=True)
    ]
    found = _narrowed(widths, floors, room - 2 * between)
    if sum(found) + 2 * between <= room:
        return 2, found
    return 1, _narrowed(found, least, room - between)


def _narrowed(widths: list[int], least: list[int], room: int) -> list[int]:
    """Return widths that take no more than the room, if they can: the widest is narrowed first."""
    found = [*widths]
    while sum(found) > room and any(map(gt, found, least)):
        found[max((at for at, low in enumerate(least) if found[at] > low), key=found.__getitem__)] -= 1
    return found


def console(columns: int | None = None, *, stderr: bool = False) -> "Console":
    """Return a console without markup, that is so wide where no terminal says how wide it is."""
    from rich.console import Console

    class PlainConsole(Console):
        def render(self, renderable: "RenderableType", options: "ConsoleOptions | None" = None) -> "Iterator[Segment]":
            for one in super().render(renderable, options):
                yield one if one.control else one._replace(text="\n".join(map(plain, one.text.split("\n"))))

    settings: dict[str, Any] = {"stderr": stderr, "highlight": False, "markup": False, "emoji": False}
    found = PlainConsole(**settings)
    return found if columns is None or found.is_terminal else PlainConsole(**settings, width=columns)


@contextmanager
def progress(description: str) -> Iterator[Callable[..., None]]:
    """A bar on standard error while the block lasts; nothing where it is no terminal.

    Yields:
        A function that takes `total`, `completed`, `advance` and `counts`, a text beside the bar.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    texts = [TextColumn(each, markup=False) for each in ("{task.description}", "{task.fields[counts]}")]
    screen = console(stderr=True)
    columns = texts[0], BarColumn(), MofNCompleteColumn(), texts[1], TimeRemainingColumn()
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        yield partial(bar.update, bar.add_task(description, total=None, counts=""))


def print_json(*values: Any) -> None:
    """Print a line of JSON for each value."""
    import msgspec

    for value in values:
        say(msgspec.json.encode(value).decode())
