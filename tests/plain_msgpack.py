"""msgpack in sixty lines of the standard library, so that tests do not read bytes with the code that wrote them.

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
            tag, body = 0xD3, struct.pack(">q", value)
        case float():
            tag, body = 0xCB, struct.pack(">d", value)
        case str():
            tag, body = 0xDB, _counted(len(value.encode()), value.encode())
        case bytes():
            tag, body = 0xC6, _counted(len(value), value)
        case dict():
            tag, body = 0xDF, _counted(len(value), b"".join(pack(k) + pack(v) for k, v in value.items()))
        case _:
            tag, body = 0xDD, _counted(len(value), b"".join(map(pack, value)))
    return bytes([tag]) + body


def _counted(count: int, body: bytes) -> bytes:
    return struct.pack(">I", count) + body


def unpack(data: bytes) -> Any:
    """The one value that the bytes hold."""
    value, at = _value(data, 0)
    assert at == len(data), f"{len(data) - at} bytes behind the value"
    return value


_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i",
    0xD3: ">q",
}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_SIZED = {
    0xC4: (">B", "bytes"), 0xC5: (">H", "bytes"), 0xC6: (">I", "bytes"), 0xD9: (">B", "text"), 0xDA: (">H", "text"),
    0xDB: (">I", "text"), 0xDC: (">H", "list"), 0xDD: (">I", "list"), 0xDE: (">H", "map"), 0xDF: (">I", "map"),
}  # fmt: skip


def _value(data: bytes, at: int) -> tuple[Any, int]:
    tag, at = data[at], at + 1
    if tag <= 0x7F or tag >= 0xE0:
        return (tag if tag <= 0x7F else tag - 0x100), at
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], at
    if tag in _NUMBERS:
        size = struct.calcsize(_NUMBERS[tag])
        return struct.unpack_from(_NUMBERS[tag], data, at)[0], at + size
    if tag in _SIZED:
        form, kind = _SIZED[tag]
        return _sized(data, at + struct.calcsize(form), kind, struct.unpack_from(form, data, at)[0])
    for lowest, kind, mask in ((0xA0, "text", 0x1F), (0x90, "list", 0x0F), (0x80, "map", 0x0F)):
        if tag >= lowest:
            return _sized(data, at, kind, tag & mask)
    raise AssertionError(tag)


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
