"""What commands write: lines, tables, JSON and bars, with the texts of other people as a terminal does not obey them.

Rules of this file:
- Commands write by `say`, `print_json`, `console` and `progress` alone, which escape whatever they are given.
"""

import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from clipper_stream.errors import plain

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.table import Table
    from rich.text import Text

SHOWN_BYTES = 4_096
"""Of a value: a screen or two."""
_BYTES_A_LINE = 16


def say(*lines: str, stderr: bool = False) -> None:
    """Print lines."""
    print(*map(plain, lines), sep="\n", file=sys.stderr if stderr else sys.stdout, flush=True)


def table(
    headings: Iterable[str],
    rows: "Iterable[Iterable[str | Text]]",
    *,
    right: Collection[str] = (),
    wrapped: Collection[str] = (),
    gap: int = 2,
) -> "Table":
    """Return a table without lines.

    Args:
        headings: Of the columns.
        rows: Cells; a string is shown as it is.
        right: Columns that are aligned at their right side.
        wrapped: Columns that may take several lines.
        gap: Blanks between columns.
    """
    from rich.table import Table
    from rich.text import Text

    found = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for name in headings:
        overflow: Literal["fold", "ellipsis"] = "fold" if name in wrapped else "ellipsis"
        justify: Literal["right", "left"] = "right" if name in right else "left"
        found.add_column(name, justify=justify, overflow=overflow, no_wrap=name not in wrapped)
    for row in rows:
        found.add_row(*(Text(plain(cell)) if isinstance(cell, str) else cell for cell in row))
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


def when(at_ms: int) -> str:
    """A timestamp in UTC, to the second; a record's may be anything.

    >>> when(0), when(2**62)
    ('1970-01-01 00:00:00', '4611686018427387904 ms')
    """
    try:
        return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, ValueError, OSError):
        return f"{at_ms} ms"


def value_lines(value: bytes | None, most_bytes: int = SHOWN_BYTES) -> list[str]:
    """A value as JSON or text where it is some, else as a hex dump; the first `most_bytes` of it.

    >>> value_lines(b'{"a": 1}'), value_lines(None)
    (['{', '  "a": 1', '}'], ['(null)'])
    """
    if value is None:
        return ["(null)"]
    lines = _text_lines(value[:most_bytes], whole=len(value) <= most_bytes) or _hex_lines(value[:most_bytes])
    rest = len(value) - most_bytes
    return [*lines, f"... and {rest} bytes more"] if rest > 0 else lines


def _text_lines(value: bytes, *, whole: bool) -> list[str] | None:
    try:
        text = value.decode("utf-8", "strict" if whole else "ignore")
    except UnicodeDecodeError:
        return None
    if whole:
        try:
            return json.dumps(json.loads(text), indent=2, ensure_ascii=True).splitlines()
        except (ValueError, RecursionError):
            pass
    lines = text.splitlines()
    return lines if all(line.replace("\t", " ").isprintable() for line in lines) else None


def _hex_lines(value: bytes) -> list[str]:
    return [
        f"{start:08x}  {row.hex(' '):<{3 * _BYTES_A_LINE - 1}}  "
        + "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)  # noqa: PLR2004 (printable ASCII)
        for start in range(0, len(value), _BYTES_A_LINE)
        for row in (value[start : start + _BYTES_A_LINE],)
    ]
