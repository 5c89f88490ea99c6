"""msgpack by the standard library, so that tests do not read bytes with the code that wrote them.

Source: https://github.com/msgpack/msgpack/blob/master/spec.md; no extension types, and what is written is not as short
as it could be.
"""

import struct
from typing import Any


def pack(value: Any) -> bytes:
    """None, booleans, numbers, text, bytes, lists and maps as msgpack."""
    match value:
        case None | bool():
            return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
        case int():
            return struct.pack(">Bq", 0xD3, value)
        case float():
            return struct.pack(">Bd", 0xCB, value)
        case str():
            tag, body = 0xDB, value.encode()
        case bytes():
            tag, body = 0xC6, value
        case dict():
            tag, body = 0xDF, b"".join(pack(key) + pack(each) for key, each in value.items())
        case _:
            tag, body = 0xDD, b"".join(map(pack, value))
    return struct.pack(">BI", tag, len(body if tag in (0xDB, 0xC6) else value)) + body


def unpack(data: bytes) -> Any:
    """The one value that the bytes hold."""
    value, at = _value(data, 0)
    assert at == len(data), f"{len(data) - at} bytes behind the value"
    return value


_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_FORMS = {
    0xCA: (">f", "number"), 0xCB: (">d", "number"), 0xCC: (">B", "number"), 0xCD: (">H", "number"),
    0xCE: (">I", "number"), 0xCF: (">Q", "number"), 0xD0: (">b", "number"), 0xD1: (">h", "number"),
    0xD2: (">i", "number"), 0xD3: (">q", "number"), 0xC4: (">B", "bytes"), 0xC5: (">H", "bytes"),
    0xC6: (">I", "bytes"), 0xD9: (">B", "text"), 0xDA: (">H", "text"), 0xDB: (">I", "text"),
    0xDC: (">H", "list"), 0xDD: (">I", "list"), 0xDE: (">H", "map"), 0xDF: (">I", "map"),
}  # fmt: skip


def _value(data: bytes, at: int) -> tuple[Any, int]:
    tag, at = data[at], at + 1
    if tag <= 0x7F or tag >= 0xE0:
        return (tag if tag <= 0x7F else tag - 0x100), at
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], at
    for lowest, short, mask in ((0xA0, "text", 0x1F), (0x90, "list", 0x0F), (0x80, "map", 0x0F)):
        if lowest <= tag < 0xC0:
            return _sized(data, at, short, tag & mask)
    assert tag in _FORMS, tag
    form, kind = _FORMS[tag]
    (found,), at = struct.unpack_from(form, data, at), at + struct.calcsize(form)
    return (found, at) if kind == "number" else _sized(data, at, kind, found)


def _sized(data: bytes, at: int, kind: str, size: int) -> tuple[Any, int]:
    if kind in ("bytes", "text"):
        found = data[at : at + size]
        assert len(found) == size, f"{size - len(found)} bytes are missing"
        return (found if kind == "bytes" else found.decode()), at + size
    values = []
    for _ in range(size if kind == "list" else 2 * size):
        value, at = _value(data, at)
        values.append(value)
    return (values if kind == "list" else dict(zip(values[::2], values[1::2], strict=True))), at
