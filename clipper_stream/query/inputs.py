"""Inputs of queries as rows of a matrix: what JSON or msgpack brought, checked against an application's input spec.

Rules of this file:
- One conversion per batch. Rows are looked at one by one only when the batch as a whole does not fit.
- A row is a (nested) list of numbers, or bytes: the row's elements in C order, little-endian, of the spec's dtype.
- true and false count as 1 and 0. Text is no number. Integer dtypes refuse fractions and overflow; a whole number may
  be written as a float (3.0), below 2^53, where every float is one integer only.
- A `json` row is passed on as it is, within what msgpack can hold: integers of 64 bits, text keys, `MAX_DEPTH` levels.
- A row of a table becomes a dictionary of its columns in their order: floats, texts, dates as ISO 8601 in UTC, None.
- Null and NaN, which JSON writes as null, are missing values where the spec has some, and refused elsewhere. So is
  infinity, everywhere: most models answer it with an exception or with nonsense.
"""

import base64
import binascii
import math
import struct
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from typing import Any, Protocol

import numpy as np

from clipper_stream.errors import InvalidInput, shown
from clipper_stream.models.row_spec import Column, RowSpec

MAX_DEPTH = 32
"""Deeper nesting of a `json` row is taken for a mistake, or an attack, long before any encoder's recursion limit."""

_NULL = "is null (NaN becomes null in JSON)"
_BINARY = (bytes, bytearray, memoryview)
_EXACT_BELOW = 2**53
_LEAST_INTEGER, _GREATEST_INTEGER = -(2**63), 2**64 - 1  # what msgpack, and so a frame to a host, can hold


class UndecodedRow(Protocol):
    """A row that is still the bytes of its record."""

    def decode(self, spec: RowSpec) -> Any:
        """The row; raises `InvalidInput` where it is no row of the spec."""
        ...


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that fit the spec, converted, and why the others do not fit.

    Attributes:
        good: The rows that fit, in the order given: a matrix of shape (n, *row shape) and the spec's dtype; a list of
            such rows where the spec leaves the length open and the lengths differ; or a list of str, bytes or any
            JSON value.
        failed: By index in the order given, the rows that do not fit.
    """

    good: np.ndarray | list[Any]
    failed: Mapping[int, InvalidInput] = field(default_factory=dict)


def to_rows(spec: RowSpec, inputs: Sequence[Any]) -> Rows:
    """Convert the decoded rows of many queries together; a row that does not fit fails alone."""
    try:
        return Rows(convert(spec, inputs))
    except InvalidInput:
        return _one_by_one(spec, inputs)


def to_matrix(spec: RowSpec, rows: Sequence[Any]) -> np.ndarray | list[Any]:
    """Convert rows that all have to fit, as those of one query: to a matrix of shape (n, *row shape), else a list.

    Raises:
        InvalidInput: a row does not fit; or their lengths differ, where the spec leaves the length open.
    """
    try:
        return convert(spec, rows)
    except InvalidInput as error:
        index = _first_failing(spec, rows)
        if index is None:
            raise
        reason = _one_by_one(spec, [rows[index]]).failed[0]
        raise InvalidInput(f"row {index}: {reason}") from error


def convert(spec: RowSpec, rows: Sequence[Any]) -> np.ndarray | list[Any]:
    """Convert rows in one step, as `to_matrix`.

    Raises:
        InvalidInput: one of them does not fit, or their lengths differ; `to_rows` says which, at the cost of looking at
            each.
    """
    if spec.dtype == "json":
        _check_json(rows)
        return list(rows)
    if spec.columns:
        return [_table_row(spec, row) for row in rows]
    if not spec.numeric:
        read = _READERS[spec.dtype]
        return [read(row) for row in rows]
    if len(rows) == 0:
        return np.empty((0, *(spec.shape or ())), spec.dtype)
    matrix = _from_bytes(spec, rows) if isinstance(rows[0], _BINARY) else _from_numbers(spec, rows)
    if matrix.dtype.kind == "f" and not np.isfinite(matrix).all():
        _check_finite(spec, matrix)
    return matrix


def _check_finite(spec: RowSpec, matrix: np.ndarray) -> None:
    wanted = f"for {spec.dtype}: give {_expected(spec)}, all finite"
    if np.isinf(matrix).any():
        raise InvalidInput(f"infinity, or a number too large {wanted}")
    if not spec.missing:
        raise InvalidInput(f"NaN {wanted}{_declare(spec)}")


def _declare(spec: RowSpec) -> str:
    return "" if spec.missing else ", or declare `missing = true` in the input"


def _first_failing(spec: RowSpec, rows: Sequence[Any]) -> int | None:
    """Index of a row that does not fit by itself, the first as a rule; None when none is found, as lengths differ.

    By halves, and only where it fails first: a query may have hundreds of thousands of rows, and converting each alone
    would take seconds.
    """
    start, stop = 0, len(rows)
    while stop - start > 1:
        middle = (start + stop) // 2
        if not _fits(spec, rows[start:middle]):
            stop = middle
        elif not _fits(spec, rows[middle:stop]):
            start = middle
        else:
            return None
    return None if _fits(spec, rows[start:stop]) else start


def _fits(spec: RowSpec, rows: Sequence[Any]) -> bool:
    try:
        convert(spec, rows)
    except InvalidInput:
        return False
    return True


def _one_by_one(spec: RowSpec, inputs: Sequence[Any]) -> Rows:
    good: list[Any] = []
    failed: dict[int, InvalidInput] = {}
    for index, row in enumerate(inputs):
        try:
            good.append(convert(spec, [row])[0])
        except InvalidInput as error:
            failed[index] = error
    if spec.numeric and len({row.shape for row in good}) == 1:
        return Rows(np.stack(good), failed)
    return Rows(good, failed)


def _from_bytes(spec: RowSpec, rows: Sequence[Any]) -> np.ndarray:
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    size = len(rows[0])
    wanted = size - size % dtype.itemsize if spec.shape is None else dtype.itemsize * math.prod(spec.shape)
    if not (size == wanted > 0 and all(isinstance(row, _BINARY) and len(row) == size for row in rows)):
        wish = "a multiple of the element size" if spec.shape is None else f"{wanted} bytes"
        raise InvalidInput(f"a row of {size} bytes: give {_expected(spec)} as {wish}, little-endian, in C order")
    shape = (size // dtype.itemsize,) if spec.shape is None else spec.shape
    return np.frombuffer(b"".join(rows), dtype).reshape(len(rows), *shape).astype(spec.dtype, copy=False)


def _from_numbers(spec: RowSpec, rows: Sequence[Any]) -> np.ndarray:
    packed = _packed(spec, rows) if np.dtype(spec.dtype).kind == "f" else None
    if packed is not None:
        return _to_float(spec, packed)
    try:
        found = np.asarray(rows, np.float64 if spec.missing else None) if _may_be_numbers(rows) else np.asarray(None)
    except (ValueError, OverflowError):  # lists of different lengths
        found = np.asarray(None)
    if found.dtype.kind not in "iufb":
        null = f", a number of which {_NULL}" if _has_null(rows) else ""
        raise InvalidInput(f"{_described(rows)}{null}: give {_expected(spec)}{_declare(spec) if null else ''}")
    shape = found.shape[1:]
    if shape != spec.shape if spec.shape is not None else len(shape) != 1 or shape[0] == 0:
        raise InvalidInput(f"a row of shape {list(shape)}: give {_expected(spec)}")
    return _to_float(spec, found) if np.dtype(spec.dtype).kind == "f" else _to_integer(spec, found)


def _may_be_numbers(rows: Sequence[Any]) -> bool:
    """Whether there is no text, binary or map inside, at any depth.

    numpy would make room for the longest text in the place of every element: gigabytes, for a query of a megabyte.
    """
    level: Sequence[Any] = rows
    while True:
        kinds = set(map(type, level))
        if any(issubclass(kind, (str, *_BINARY, Mapping)) for kind in kinds):
            return False
        if not any(issubclass(kind, list | tuple) for kind in kinds):
            return True
        level = [*chain.from_iterable(member for member in level if isinstance(member, list | tuple))]


def _has_null(rows: Sequence[Any]) -> bool:
    """Whether a row is null, or has a null among its numbers."""
    return any(row is None or (isinstance(row, list | tuple) and None in row) for row in rows)


def _packed(spec: RowSpec, rows: Sequence[Any]) -> np.ndarray | None:
    """Pack flat lists of equally many real numbers; None for anything else, which numpy may still understand.

    A third of the time that `np.asarray` takes, which has to find out what it was given.
    """
    if (spec.shape is not None and len(spec.shape) != 1) or not all(type(row) is list for row in rows):
        return None
    length = len(rows[0]) if spec.shape is None else spec.shape[0]
    pack = _doubles(length).pack
    try:
        data = b"".join([pack(*row) for row in rows])
    except (struct.error, OverflowError):
        return None
    return np.frombuffer(data, np.float64).reshape(len(rows), length) if length else None


@lru_cache(maxsize=256)
def _doubles(count: int) -> struct.Struct:
    return struct.Struct(f"{count}d")


def _to_float(spec: RowSpec, found: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinity is refused by the caller
        # always by way of float64: a row must not be rounded otherwise because another row in the batch has fractions
        return found.astype(np.float64, copy=False).astype(spec.dtype, copy=False)


def _to_integer(spec: RowSpec, found: np.ndarray) -> np.ndarray:
    bounds = np.iinfo(spec.dtype)
    if (found.dtype.kind == "f" and not _is_whole(found)) or found.min() < bounds.min or found.max() > bounds.max:
        raise InvalidInput(
            f"{_described(found.tolist())}: give {_expected(spec)}, integers from {bounds.min} to {bounds.max}"
        )
    return found.astype(spec.dtype, copy=False)


def _is_whole(found: np.ndarray) -> bool:
    return bool(((np.abs(found) < _EXACT_BELOW) & (found == np.trunc(found))).all())


def _expected(spec: RowSpec) -> str:
    shape = "one dimension" if spec.shape is None else f"shape {list(spec.shape)}"
    return f"{spec.dtype} numbers of {shape}"


def _described(rows: Sequence[Any]) -> str:
    if len(rows) != 1:
        return f"{len(rows)} rows, not all of the same shape or not all of numbers"
    return f"the row {shown(rows[0])}"


def _text(row: Any) -> str:
    if isinstance(row, str):
        return row
    raise InvalidInput(f"{_described([row])}: give a string")


def _bytes(row: Any) -> bytes:
    if isinstance(row, _BINARY):
        return bytes(row)
    try:
        return base64.b64decode(row["base64"], validate=True)
    except (TypeError, KeyError, IndexError, ValueError, binascii.Error):
        raise InvalidInput(f'{_described([row])}: give bytes in msgpack, or {{"base64": "..."}}') from None


def _table_row(spec: RowSpec, row: Any) -> dict[str, Any]:
    columns = spec.columns
    if isinstance(row, Mapping):
        given = [row.get(name) for name, _ in columns]
        unknown = row.keys() - {name for name, _ in columns} if len(row) != len(columns) or None in given else ()
        if unknown:
            names = shown([name for name, _ in columns])
            raise InvalidInput(f"the columns {shown(sorted(map(str, unknown)))} are unknown: the table has {names}")
    elif isinstance(row, list | tuple) and len(row) == len(columns):
        given = [*row]
    else:
        raise InvalidInput(f"{_described([row])}: give an object, or a list, with the {len(columns)} columns")
    found: dict[str, Any] = {}
    for column, value in zip(columns, given, strict=True):
        if value is None or value != value:  # NaN  # noqa: PLR0124
            if not spec.missing:
                left_out = isinstance(row, Mapping) and column.name not in row
                what = "is left out" if left_out else "is NaN" if value is not None else _NULL
                raise InvalidInput(f"column {column.name!r} {what}: give a {column.dtype}{_declare(spec)}")
            found[column.name] = None
        else:
            found[column.name] = _CELLS[column.dtype](column, value)
    return found


def _number_cell(column: Column, value: Any) -> float:
    if isinstance(value, int | float) and abs(value) <= sys.float_info.max:
        return float(value)
    raise InvalidInput(f"column {column.name!r} has {shown(value)}: give a finite number")


def _text_cell(column: Column, value: Any) -> str:
    if isinstance(value, str):
        return value
    raise InvalidInput(f"column {column.name!r} has {shown(value)}: give a string")


def _date_cell(column: Column, value: Any) -> str:
    """The time in UTC, which is meant where a text names no zone."""
    try:
        time = datetime.fromisoformat(value)
        return (time if time.tzinfo is None else time.astimezone(UTC)).replace(tzinfo=None).isoformat()
    except (TypeError, ValueError, OverflowError):
        wanted = "a day or a time in ISO 8601, as 2026-01-31 or 2026-01-31T09:30:00Z"
        raise InvalidInput(f"column {column.name!r} has {shown(value)}: give {wanted}") from None


def _check_json(rows: Sequence[Any]) -> None:
    """Refuse values that could not be encoded again on the way to a model.

    Level by level and not value by value: a row of a megabyte may have half a million values.
    """
    level: Sequence[Any] = rows
    for _ in range(MAX_DEPTH + 1):
        kinds = set(map(type, level))
        if int in kinds:
            _check_integers([value for value in level if type(value) is int])
        if float in kinds and not all(map(math.isfinite, [value for value in level if type(value) is float])):
            raise InvalidInput("the row has NaN or infinity: give finite numbers, or null")
        strange = [kind for kind in kinds if not issubclass(kind, _JSON)]
        if strange:
            raise InvalidInput(f"a value of type {strange[0].__name__}: give numbers, text, lists or maps")
        level = list(_members(level))
        if not level:
            return
    raise InvalidInput(f"the row is nested deeper than {MAX_DEPTH} levels: give a flatter one")


def _check_integers(values: Sequence[int]) -> None:
    for value in (min(values), max(values)):
        if not _LEAST_INTEGER <= value <= _GREATEST_INTEGER:
            raise InvalidInput(f"the integer {shown(value)} has more than 64 bits: give it as text or as a float")


def _members(level: Sequence[Any]) -> Iterable[Any]:
    maps = [value for value in level if isinstance(value, Mapping)]
    if not set(map(type, chain.from_iterable(maps))) <= {str}:
        strange = next(value for value in maps if not all(isinstance(key, str) for key in value))
        raise InvalidInput(f"a map with keys other than text, {shown(strange)}: give text")
    lists = (value for value in level if isinstance(value, list | tuple))
    return chain(chain.from_iterable(value.values() for value in maps), chain.from_iterable(lists))


_JSON = (type(None), bool, int, float, str, bytes, Mapping, list, tuple)
_CELLS: Mapping[str, Callable[[Column, Any], Any]] = {"number": _number_cell, "text": _text_cell, "date": _date_cell}
_READERS: Mapping[str, Callable[[Any], Any]] = {"text": _text, "bytes": _bytes}
