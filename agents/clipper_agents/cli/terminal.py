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
from typing import TYPE_CHECKING, Any

from clipper_stream.errors import plain

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text

PIPE_COLUMNS = 132
"""Where no terminal says how wide it is."""


def say(*lines: str, stderr: bool = False) -> None:
    """Print lines."""
    print(*map(plain, lines), sep="\n", file=sys.stderr if stderr else sys.stdout, flush=True)


@dataclass(frozen=True)
class TextTable:
    """A table without lines; where it is too wide, headings are folded at their blanks, then the widest columns.

    A page of `status` has a table an application, and rich's own takes six times as long.
    """

    headings: Sequence[str]
    rows: "Iterable[Iterable[str | Text]]"
    right: Collection[str] = ()
    """Headings of the columns that are aligned at their right side."""

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Text]":
        from rich.text import Text

        rows = [[Text(plain(cell)) if isinstance(cell, str) else cell for cell in row] for row in self.rows]
        gap, widths = self._layout(rows, options.max_width)
        for row in ([Text(name, "bold") for name in self.headings], *rows):
            cells = [
                [cell] if cell.cell_len <= width else cell.wrap(console, width, overflow="fold")
                for cell, width in zip(row, widths, strict=False)
            ]
            for parts in zip_longest(*cells, fillvalue=Text()):
                line = Text(no_wrap=True)
                for name, part, width in zip(self.headings, parts, widths, strict=False):
                    blanks = " " * (width - part.cell_len)
                    before, after = (blanks, gap) if name in self.right else ("", blanks + gap)
                    line.append(before).append_text(part).append(after)
                line.rstrip()
                yield line

    def _layout(self, rows: "list[list[Text]]", room: int) -> tuple[str, list[int]]:
        """What is between columns, and their widths; those too wide together are narrowed, the widest first."""
        least = [max(map(len, name.split()), default=0) for name in self.headings]
        cells = [max(low, *(row[at].cell_len for row in rows if at < len(row)), 0) for at, low in enumerate(least)]
        found = [max(len(name), width) for name, width in zip(self.headings, cells, strict=True)]
        whole = cells if sum(cells) + len(cells) - 1 <= room else least
        gap = 2 if sum(whole) + 2 * (len(whole) - 1) <= room else 1
        for narrowest in (cells, least):
            while sum(found) + gap * (len(found) - 1) > room and found != narrowest:
                wide = [at for at, low in enumerate(narrowest) if found[at] > low]
                found[max(wide, key=found.__getitem__)] -= 1
        return " " * gap, found


def print_records(
    records: Sequence[Any],
    row_of: "Callable[[Any], Mapping[str, str | Text]]",
    *,
    as_json: bool = False,
    otherwise: str = "nothing",
    right: Collection[str] = (),
) -> None:
    """Print a line of JSON a record, or a row of a table, or what is said where there are none."""
    rows = [] if as_json else [row_of(one) for one in records]
    if as_json:
        print_json(*records)
    elif rows:
        console().print(TextTable([*rows[0]], [row.values() for row in rows], right))
    else:
        say(otherwise)


def print_fields(fields: Mapping[str, str]) -> None:
    """Print a name and its value a line; the further lines of a value stand below its first."""
    width = max(map(len, fields))
    for name, value in fields.items():
        first, *more = value.split("\n")
        say(f"{name:<{width}}  {first}", *(" " * (width + 2) + line for line in more))


def console(columns: int = PIPE_COLUMNS, *, stderr: bool = False) -> "Console":
    """Return a console without markup, that is so wide where no terminal says how wide it is."""
    from rich.console import Console

    class PlainConsole(Console):
        def render(self, renderable: "RenderableType", options: "ConsoleOptions | None" = None) -> "Iterator[Segment]":
            for one in super().render(renderable, options):
                ready = one.control or one.text.isprintable()
                yield one if ready else one._replace(text="\n".join(map(plain, one.text.split("\n"))))

    settings: dict[str, Any] = {"stderr": stderr, "highlight": False, "markup": False, "emoji": False}
    found = PlainConsole(**settings)
    return found if found.is_terminal else PlainConsole(**settings, width=columns)


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
