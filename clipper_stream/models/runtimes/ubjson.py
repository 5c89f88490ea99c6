"""Whether bytes are one whole UBJSON object: every length inside leads no further than the end.

XGBoost's reader trusts these lengths. A file that was cut off ends the process, or has it ask for all memory there is;
a host that is to load it would be started and end again and again. So the file is walked through before, without making
anything.

Source: Universal Binary JSON Specification, draft 12 ("Value Types", "Container Types", "Optimized Format").
"""

from collections.abc import Mapping

_SIZES: Mapping[bytes, int] = {
    b"Z": 0, b"N": 0, b"T": 0, b"F": 0, b"i": 1, b"U": 1, b"C": 1, b"I": 2, b"l": 4, b"d": 4, b"L": 8, b"D": 8,
}  # fmt: skip
"""Bytes after the marker of a value of fixed size."""
_INTEGERS = frozenset({b"i", b"U", b"I", b"l", b"L"})
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
    """A place in the bytes, that only goes on."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.at = 0

    def value(self, depth: int, marker: bytes = b"") -> None:
        """Go over one value; its marker stands before it, unless that was given for all members of a container."""
        marker = marker or self._take(1)
        if depth == 0:
            raise ValueError(f"nested deeper than {_MAX_DEPTH} levels at byte {self.at}")
        if marker in _SIZES:
            self._take(_SIZES[marker])
        elif marker in {b"S", b"H"}:
            self._take(self._length())
        elif marker in {b"[", b"{"}:
            self._members(depth - 1, keyed=marker == b"{")
        else:
            raise ValueError(f"byte {self.at - 1} is {marker!r}, which begins no value")

    def _members(self, depth: int, *, keyed: bool) -> None:
        kind = self._take(1) if self._announced(b"$") else b""
        count = self._length() if self._announced(b"#") else None
        if kind in _SIZES and not keyed:
            if count is None:
                raise ValueError(f"an array of one type has no length at byte {self.at}")
            self._take(count * _SIZES[kind])
            return
        while count != 0 and not (count is None and self._announced(b"}" if keyed else b"]")):
            count = None if count is None else count - 1
            if keyed:
                self._take(self._length())
            self.value(depth, kind)

    def _announced(self, marker: bytes) -> bool:
        found = self._content[self.at : self.at + 1] == marker
        self.at += found
        return found

    def _length(self) -> int:
        marker = self._take(1)
        if marker not in _INTEGERS:
            raise ValueError(f"byte {self.at - 1} is {marker!r}, which begins no length")
        length = int.from_bytes(self._take(_SIZES[marker]), "big", signed=marker != b"U")
        if length < 0:
            raise ValueError(f"a length of {length} before byte {self.at}")
        return length

    def _take(self, count: int) -> bytes:
        taken = self._content[self.at : self.at + count]
        if len(taken) < count:
            raise ValueError(
                f"{count} bytes are announced at byte {self.at}, and the file ends at {len(self._content)}"
            )
        self.at += count
        return taken
