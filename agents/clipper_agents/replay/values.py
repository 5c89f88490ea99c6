"""Words that are met again and again, by number: outputs and labels, models, contexts.

Rules of this file:
- A value of the logs is whatever JSON or msgpack can say. 1, 1.0 and true are three values, though a dictionary of
  Python takes them for one.
- A value can be put away as bytes and comes back as it was: also an integer of any size, and what is not a number.
"""

import json
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

W = TypeVar("W", bound=Hashable)
_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode
_JSON, _MSGPACK = b"j", b"m"
_PLAIN = frozenset((int, str, type(None)))
"""Values of these types are their own keys."""


class Codes(dict[W, int], Generic[W]):
    """Consecutive numbers of words; looking up a new word gives it the next number.

    >>> codes = Codes[str]()
    >>> codes["a"], codes["b"], codes["a"], list(codes)
    (0, 1, 0, ['a', 'b'])
    """

    def __missing__(self, word: W) -> int:
        code = self[word] = len(self)
        return code

    @classmethod
    def of(cls, words: Iterable[W]) -> "Codes[W]":
        """Return the words numbered in this order."""
        codes: Codes[W] = cls()
        for word in words:
            _ = codes[word]
        return codes


class _ValueCodes(Codes[Any]):
    """Numbers of values that are their own keys; each new value is appended to a list."""

    def __init__(self, known: list[Any]) -> None:
        super().__init__()
        self._known = known

    def __missing__(self, key: Any) -> int:
        self._known.append(key)
        return super().__missing__(key)


class Values:
    """Outputs and labels of the logs by number.

    Attributes:
        known: The values in the order of their numbers.

    >>> Values().codes([1, 1.0, True, [1], [1], None])
    [0, 1, 2, 3, 3, 4]
    """

    def __init__(self, known: Iterable[Any] = ()) -> None:
        self.known: list[Any] = []
        self._codes = _ValueCodes(self.known)
        self.codes([*known])

    def __len__(self) -> int:
        return len(self.known)

    def codes(self, values: Sequence[Any]) -> list[int]:
        """Return the number of each value."""
        own = self._codes
        if _PLAIN.issuperset(map(type, values)):
            return [own[value] for value in values]
        return [own[value] if type(value) in _PLAIN else self._code(value) for value in values]

    def _code(self, value: Any) -> int:
        """Return the number of a value that is not its own key."""
        key = _key_of(value)
        found = self._codes.get(key)
        if found is None:
            found = self._codes[key] = len(self.known)
            self.known.append(value)
        return found


def _key_of(value: Any) -> Hashable:
    if isinstance(value, float | bool):
        return type(value), value
    return packed(value)


def packed(value: Any) -> bytes:
    """Encode a value as bytes that `unpacked` decodes.

    >>> unpacked(packed([2**70, "x"]))
    [1180591620717411303424, 'x']
    """
    try:
        return _MSGPACK + _encode(value)
    except (OverflowError, ValueError):  # an integer that msgpack has no room for, as only JSON can bring one
        return _JSON + json.dumps(value).encode()


def unpacked(content: bytes) -> Any:
    """Decode a value that `packed` encoded."""
    return _decode(content[1:]) if content[:1] == _MSGPACK else json.loads(content[1:])


def text_of(value: Any) -> str:
    """Return the value as compact JSON, with null for numbers that are not finite.

    >>> text_of([1, 2.50]), text_of(2**70)
    ('[1,2.5]', '1180591620717411303424')
    """
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError):
        return json.dumps(value, default=repr, separators=(",", ":"), skipkeys=True)
