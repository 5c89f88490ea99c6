"""From values of a program, such as arrays, to values that a record can hold."""

import base64
from typing import Any

import msgspec

UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)
"""What encoding raises: a type or a map key that no record has, half a surrogate, a huge integer, a list in itself."""


def plain(value: Any) -> Any:
    """The value with arrays as lists and numpy scalars as numbers; bytes become `{"base64": ...}`.

    >>> plain(b"abc")
    {'base64': 'YWJj'}

    Raises:
        ValueError: no record can hold the value.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"base64": base64.b64encode(value).decode()}
    try:
        return msgspec.to_builtins(value, enc_hook=_from_array)
    except UNENCODABLE as error:
        raise ValueError(f"{error}: give numbers, nested numbers, text, bytes, or an array of numbers") from error


def _from_array(value: Any) -> Any:
    tolist = getattr(value, "tolist", None)
    if tolist is None:
        raise TypeError(f"a value of type {type(value).__name__} cannot be sent")
    return tolist()
