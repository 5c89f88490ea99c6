"""What commands write: lines, tables, JSON and bars, with the texts of other people as a terminal does not obey them.

Rules of this file:
- Commands write by `say`, `print_json`, `console` and `progress` alone, which escape whatever they are given.
"""

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
"""Of a column that is folded before others: less is hard to read."""
PIPE_COLUMNS = 132
"""Where no terminal says how wide it is."""


def say(*lines: str, stderr: bool = False) -> None:
    """Print lines."""
    print(*map(plain, lines), sep="\n", file=sys.stderr if stderr else sys.stdout, flush=True)


@dataclass(frozen=True)
class TextTable:
    """A table without lines; where it is too wide, the widest cells are folded, and never its headings.

    A page of `status` has a table an application, and rich's own takes six times as long.

    Attributes:
        headings: Of the columns.
        rows: Cells; a row may have fewer than there are columns.
        right: Columns that are aligned at their right side.
        wrapped: Columns that are folded before all others.
    """

    headings: Sequence[str]
    rows: "Sequence[Sequence[Text]]"
    right: Collection[str]
    wrapped: Collection[str]

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Text]":
        from rich.text import Text

        gap, widths = self._layout(options.max_width)
        for row in ([Text(name, "bold") for name in self.headings], *self.rows):
            cells = [
                [cell] if cell.cell_len <= width else cell.wrap(console, width, overflow="fold")
                for cell, width in zip(row, widths, strict=False)
            ]
            for parts in zip_longest(*cells, fillvalue=Text()):
                line = Text()
                for name, part, width in zip(self.headings, parts, widths, strict=False):
                    blanks = " " * (width - part.cell_len)
                    line.append_text(Text(blanks) + part if name in self.right else part).append(
                        gap if name in self.right else f"{blanks}{gap}"
                    )
                line.rstrip()
                yield line

    def _layout(self, room: int) -> tuple[str, list[int]]:
        """What is between columns, and their widths; those too wide together are narrowed, the widest first."""
        least = [*map(len, self.headings)]
        found = [max(low, *(row[at].cell_len for row in self.rows if at < len(row)), 0) for at, low in enumerate(least)]
        first = [max(low, FOLDED_WIDTH) for low in least]
        floors = [
            min(width, low) if name in self.wrapped else width
            for name, width, low in zip(self.headings, found, first, strict=True)
        ]
        gap = 2 if sum(floors) + 2 * (len(found) - 1) <= room else 1
        room -= gap * (len(found) - 1)
        for least_widths in (floors, least):
            while sum(found) > room and any(map(gt, found, least_widths)):
                wide = [at for at, low in enumerate(least_widths) if found[at] > low]
                found[max(wide, key=found.__getitem__)] -= 1
        return " " * gap, found


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


def print_records(
    records: Sequence[Any],
    row_of: "Callable[[Any], Mapping[str, str | Text]]",
    *,
    as_json: bool = False,
    otherwise: str = "nothing",
    right: Collection[str] = (),
    wrapped: Collection[str] = (),
) -> None:
    """Print a line of JSON a record, or a row of a table, or what is said where there are none."""
    rows = [] if as_json else [row_of(one) for one in records]
    if as_json:
        print_json(*records)
    elif rows:
        cells = (row.values() for row in rows)
        console(PIPE_COLUMNS).print(table(rows[0], cells, right=right, wrapped=wrapped))
    else:
        say(otherwise)


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
