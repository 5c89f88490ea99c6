"""Outputs of models as plain Python values that any process can write down as JSON or msgpack.

Rules of this file:
- An output is text, a bool, a finite float, an integer of at most 64 bits, or a list or text-keyed dict of such values
  and null. Null alone is no output: it is what a function gives that forgot to return.
- One output that breaks the rule fails its own row and no other.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEAST_INTEGER, _GREATEST_INTEGER = -(2**63), 2**64 - 1
"""What msgpack can hold."""
_MAX_DEPTH = 32
"""Deeper nesting is taken for a mistake, long before an encoder's recursion limit."""
_EXACT_KINDS = "biu"
"""numpy kinds of which every value is a plain bool or integer."""
_FLOAT_BYTES = 8
"""numpy floats wider than this have no plain Python value."""


class NotPlain(ValueError):
    """An output that cannot be written down; the message is the explanation of the failed row."""


def plain_outputs(outputs: Sequence[Any] | NDArray[Any]) -> tuple[list[Any], dict[int, str]]:
    """The outputs, one a row, as plain values, null where one cannot be, and why, by row.

    >>> plain_outputs(np.array([1.5, float("nan")]))
    ([1.5, None], {1: 'the output is nan: give a finite number'})
    """
    if isinstance(outputs, np.ndarray) and _is_clean(outputs):
        return outputs.tolist(), {}
    plain: list[Any] = []
    failed: dict[int, str] = {}
    for row, output in enumerate(outputs):
        try:
            if output is None:
                raise NotPlain("the output is null: give a value for every row")  # noqa: TRY301 - as what is deeper
            plain.append(_plain(output, _MAX_DEPTH))
        except NotPlain as error:
            plain.append(None)
            failed[row] = str(error)
    return plain, failed


def split_confidence(output: Any) -> tuple[Any, float | None]:
    """The label of an output, and its confidence where the output is an object of just these two.

    >>> split_confidence({"label": "cat", "confidence": 0.75}), split_confidence("cat")
    (('cat', 0.75), ('cat', None))
    """
    if not isinstance(output, dict) or output.keys() != {"label", "confidence"}:
        return output, None
    said = output["confidence"]
    return output["label"], said if isinstance(said, int | float) and 0.0 <= said <= 1.0 else None


def _is_clean(outputs: NDArray[Any]) -> bool:
    dtype = outputs.dtype
    if dtype.kind == "f" and dtype.itemsize <= _FLOAT_BYTES:
        return bool(np.isfinite(outputs).all())
    return dtype.kind in _EXACT_KINDS


def _plain(value: Any, depth: int) -> Any:
    if depth == 0:
        raise NotPlain(f"the output is nested deeper than {_MAX_DEPTH} levels: give a flatter value")
    match value:
        case None | bool():
            return value
        case str() | int() | float():
            return _plain_scalar(value)
        case Mapping():
            return {_key(key): _plain(member, depth - 1) for key, member in value.items()}
        case list() | tuple():
            return [_plain(member, depth - 1) for member in value]
    return _plain(_unwrapped(value), depth - 1)


def _plain_scalar(value: str | float) -> str | int | float:
    if isinstance(value, str):
        return _plain_text(value)
    if isinstance(value, int):
        if not _LEAST_INTEGER <= value <= _GREATEST_INTEGER:
            raise NotPlain("the output has an integer of more than 64 bits: give it as text or as a float")
        return int(value)
    if not math.isfinite(value):
        raise NotPlain(f"the output is {float(value)}: give a finite number")
    return float(value)


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise NotPlain(f"the output has a key of type {type(key).__name__}: keys are text")
    return _plain_text(key)


def _plain_text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise NotPlain(f"the output has a text that UTF-8 cannot hold: {error.reason}") from error
    return str.__str__(value)


def _unwrapped(value: Any) -> Any:
    if not isinstance(value, np.generic) and hasattr(value, "__array__"):
        value = np.asarray(value)
    if isinstance(value, np.ndarray | np.generic):
        plain = value.tolist()
        if not isinstance(plain, np.ndarray | np.generic):
            return plain
    raise NotPlain(f"the output has a value of type {type(value).__name__}: give numbers, text, lists or dicts")
