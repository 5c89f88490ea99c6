"""Bytes and texts of other people on a terminal: what is no plain text is escaped, and what is long is cut."""

import json
from datetime import UTC, datetime

SHOWN_BYTES = 4_096
"""Of a value: a screen or two."""
_BYTES_A_LINE = 16


def plain(text: str) -> str:
    r"""The text without anything that a terminal would obey.

    >>> plain("red: \x1b[31m")
    'red: \\x1b[31m'
    """
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "backslashreplace").decode() for each in text
    )


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
