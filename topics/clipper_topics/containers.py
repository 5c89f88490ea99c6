"""How many lists and maps are inside of a value that may hold anything, by its bytes, before any of it is made.

A byte of msgpack may be a map, and becomes seventy in Python: a megabyte of them takes a tenth of a second.
"""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from clipper_topics.codec import JSON

LARGE_BYTES = 1 << 15
"""Of a record: what is inside of a smaller one need not be counted."""
MOST_CONTAINERS = 20_000
"""Some megabytes in Python, made in some milliseconds."""

MOST_LEVELS = 16
"""Of lists and maps in each other, where they have to be counted: each level costs another look at what is in it."""

_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NOT_STRUCTURE = bytes({*range(256)}.difference(b"[]{},"))
_HEADERS = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
"""First bytes of lists and maps in msgpack; the lengths of most of them are in the bytes that follow."""
_SHORT_BELOW, _TWO_BYTES = 0xA0, (0xDC, 0xDE)
_Plain = int | float | str | bool | None
_PLAIN: Any = msgspec.msgpack.Decoder(list[_Plain] | dict[str, _Plain])
_PARTS: Any = msgspec.msgpack.Decoder(list[msgspec.Raw] | dict[str, msgspec.Raw])


def check_containers(raw: bytes, kind: str) -> None:
    """Check that a well-formed value holds no more than `MOST_CONTAINERS` lists and maps.

    Raises:
        ValueError: it holds more, or many in more than `MOST_LEVELS` levels.

    >>> check_containers(b"[" + b"{}," * 20_000 + b"0]", JSON)
    Traceback (most recent call last):
    ValueError: more than 20000 lists and maps in one value: give fewer
    """
    counts = _in_json if kind == JSON else _in_msgpack
    if counts(raw) > MOST_CONTAINERS:
        raise ValueError(f"more than {MOST_CONTAINERS} lists and maps in one value: give fewer")


def json_structure(text: bytes) -> bytes:
    """Return the brackets and commas of a JSON text that are not in its strings."""
    return (_TEXT.sub(b"", text) if b'"' in text else text).translate(None, _NOT_STRUCTURE)


def length_of(value: bytes | memoryview) -> int:
    """Return the length that a list or map in msgpack states first.

    >>> length_of(bytes((0xDD, 0, 15, 66, 64)))
    1000000
    """
    header = value[0]
    if header < _SHORT_BELOW:
        return header & 0x0F
    return int.from_bytes(value[1 : 3 if header in _TWO_BYTES else 5])


def _in_json(text: bytes) -> int:
    most = text.count(b"[") + text.count(b"{")
    if most <= MOST_CONTAINERS:
        return most
    found = json_structure(text)
    return found.count(b"[") + found.count(b"{")


def _in_msgpack(value: bytes) -> int:
    most = len(value) - len(value.translate(None, _HEADERS))  # some of these bytes are parts of numbers and text
    if most <= MOST_CONTAINERS:
        return most
    count, waiting = 0, list[bytes | memoryview]([value])
    for _ in range(MOST_LEVELS):
        found = [part for part in waiting if part[0] in _HEADERS]
        count += len(found)
        if not found or count > MOST_CONTAINERS:
            return count
        waiting = [inner for part in found for inner in _parts(part)]
    raise ValueError(f"many lists and maps, and more than {MOST_LEVELS} in each other: give fewer")


def _parts(value: bytes | memoryview) -> Iterable[memoryview]:
    """The members of a list or map of which some is a list or a map too."""
    try:
        _PLAIN.decode(value)
    except msgspec.ValidationError:
        if length_of(value) > MOST_CONTAINERS:
            raise ValueError(
                f"a list or map of more than {MOST_CONTAINERS} values of several kinds: give fewer"
            ) from None
        parts = _PARTS.decode(value)
        return map(memoryview, parts.values() if isinstance(parts, dict) else parts)
    return ()
