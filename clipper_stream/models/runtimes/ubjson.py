"""Whether bytes are one whole UBJSON object: every length inside leads no further than the end.

XGBoost's reader trusts these lengths. A file that was cut off ends the process, or has it ask for all memory there is;
a host that is to load it would be started and end again and again. So the file is walked through before, without making
anything.

Source: Universal Binary JSON Specification, draft 12 ("Value Types", "Container Types", "Optimized Format").
"""

import struct
from collections.abc import Callable, Mapping

_SIZES: Mapping[bytes, int] = {
    b"Z": 0, b"N": 0, b"T": 0, b"F": 0, b"i": 1, b"U": 1, b"C": 1, b"I": 2, b"l": 4, b"d": 4, b"L": 8, b"D": 8,
}  # fmt: skip
"""Bytes after the marker of a value of fixed size."""
_INTEGERS: Mapping[bytes, str] = {b"i": ">b", b"U": ">B", b"I": ">h", b"l": ">i", b"L": ">q"}
_MAX_DEPTH = 64


def check_whole(content: bytes) -> None:
    """Nothing, when the bytes are one object, and nothing comes after it.

    >>> check_whole(bytes([0x7B, 0x69, 1, 0x61, 0x54, 0x7D]))  # {"a": true}

    Raises:
        ValueError: says at which byte it is cut off, or what no marker is.
    """
    if content[:1] != b"{":
        raise ValueError(f"byte 0 is {content[:1]!r}, and an object begins with b'{{'")
    walk = _Walk(content)
    walk.value(_MAX_DEPTH)
    if walk.at != len(content):
        raise ValueError(f"the object ends at byte {walk.at}, and the file has {len(content)}")


class _Walk:
    """A place in the bytes, that only goes on.

    Args:
        content: All bytes.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.at = 0

    def value(self, depth: int) -> None:
        """Go over one value and its marker."""
        self._after(self._marker(), depth)

    def _after(self, marker: bytes, depth: int) -> None:
        """Skip the value that follows a marker."""
        if depth == 0:
            raise ValueError(f"nested deeper than {_MAX_DEPTH} levels at byte {self.at}")
        if marker in _SIZES:
            self._take(_SIZES[marker])
        elif marker in {b"S", b"H"}:
            self._take(self._length())
        elif marker == b"[":
            self._members(b"]", lambda: None, depth - 1)
        elif marker == b"{":
            self._members(b"}", lambda: self._take(self._length()), depth - 1)
        else:
            raise ValueError(f"byte {self.at - 1} is {marker!r}, which begins no value")

    def _members(self, end: bytes, key: Callable[[], object], depth: int) -> None:
        kind = self._marker() if self._announced(b"$") else b""
        count = self._length() if self._announced(b"#") else None
        if kind in _SIZES and end == b"]":
            if count is None:
                raise ValueError(f"an array of one type has no length at byte {self.at}")
            self._take(count * _SIZES[kind])
            return
        while count != 0 and not (count is None and self._announced(end)):
            count = None if count is None else count - 1
            key()
            self._after(kind or self._marker(), depth)

    def _announced(self, marker: bytes) -> bool:
        found = self._content[self.at : self.at + 1] == marker
        self.at += found
        return found

    def _length(self) -> int:
        marker = self._marker()
        if marker not in _INTEGERS:
            raise ValueError(f"byte {self.at - 1} is {marker!r}, which begins no length")
        (length,) = struct.unpack(_INTEGERS[marker], self._take(_SIZES[marker]))
        if length < 0:
            raise ValueError(f"a length of {length} before byte {self.at}")
        return int(length)

    def _marker(self) -> bytes:
        return self._take(1)

    def _take(self, count: int) -> bytes:
        taken = self._content[self.at : self.at + count]
        if len(taken) < count:
            raise ValueError(
                f"{count} bytes are announced at byte {self.at}, and the file ends at {len(self._content)}"
            )
        self.at += count
        return taken
