"""Rows that stay bytes until it is known that somebody wants them, and what they should be.

Rules of this file:
- A row is decoded as what its application's input spec allows. A megabyte of maps where numbers are wanted ends at the
  first one, and never becomes a million objects; where anything is wanted, lists and maps are counted first.
- Rows are counted before any is taken out.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np

from clipper_stream.errors import InvalidInput
from clipper_stream.models.row_spec import RowSpec
from clipper_topics.codec import JSON, MSGPACK, UndecodableRecord, no_extension
from clipper_topics.containers import check_containers, json_structure, length_of
from clipper_topics.query import MOST_ROWS

LOOKED_AT = 1 << 16
"""Bytes of a text that are looked at together: its depths take four times as many."""
Number = int | float | bool
Cell = Number | str | None
_NULL = {JSON: b"null", MSGPACK: b"\xc0"}
_LISTS = bytes([*range(0x90, 0xA0), 0xDC, 0xDD])
_COMMA, _OPENS = b",["
_STEPS = np.zeros(256, np.int8)
_STEPS[[*b"[{"]], _STEPS[[*b"]}"]] = 1, -1


class RawRow(NamedTuple):
    """One row as the record has it.

    Attributes:
        raw: Its bytes.
        kind: Their content type.
        rows: All rows of the record, of its first row; they are looked at once.
    """

    raw: msgspec.Raw
    kind: str
    rows: msgspec.Raw | None = None

    @property
    def is_null(self) -> bool:
        return memoryview(self.raw) == _NULL[self.kind]

    def decode(self, spec: RowSpec) -> Any:
        """The row, as `decode_queries` would have it.

        Raises:
            InvalidInput: it is no row of the spec.
        """
        dimensions = len(spec.shape) if spec.shape is not None else 1
        try:
            if spec.dtype == "json" and self.rows is not None:
                check_containers(bytes(self.rows), self.kind)
            wanted = spec.dtype if not spec.numeric else "gaps" if spec.missing else "numbers"
            return _decoder(self.kind, wanted, dimensions).decode(self.raw)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"a row of {len(bytes(self.raw))} bytes: {error}") from error


def raw_rows(rows: msgspec.Raw, kind: str) -> Sequence[msgspec.Raw] | range | None:
    """The rows of a packed query, each still undecoded; None for null. Of too many rows it has the number only.

    Raises:
        UndecodableRecord: they are no list.
    """
    count = _count_rows(bytes(rows), kind)
    if count > MOST_ROWS:
        return range(count)
    try:
        decoded: list[msgspec.Raw] | None = _decoder(kind, "rows", 0).decode(rows)
    except (ValueError, RecursionError) as error:
        raise UndecodableRecord(f"not {kind}: {error} - at `$.inputs`") from error
    return decoded


def _count_rows(rows: bytes, kind: str) -> int:
    """Count the values of a list, at least where they may be too many; 0 for anything else."""
    if kind != JSON:
        return length_of(rows) if rows[0] in _LISTS else 0
    if rows.count(b",") < MOST_ROWS:
        return 0
    structure, depth, commas = np.frombuffer(json_structure(rows), np.uint8), 0, 0
    for first in range(0, len(structure), LOOKED_AT):
        some = structure[first : first + LOOKED_AT]
        depths = depth + np.cumsum(_STEPS[some], dtype=np.int32)
        commas += int(((some == _COMMA) & (depths == 1)).sum())
        depth = int(depths[-1])
    return commas + 1 if len(structure) and structure[0] == _OPENS else 0


@lru_cache(maxsize=64)
def _decoder(kind: str, wanted: str, dimensions: int) -> Any:
    types: dict[str, Any] = {
        "rows": list[msgspec.Raw] | None,
        "text": str,
        "bytes": dict[str, str] if kind == JSON else bytes | dict[str, str],
        "json": Any,
        "table": dict[str, Cell] | list[Cell],
        "numbers": Number,
        "gaps": Number | None,
    }
    rows: Any = types[wanted]
    if wanted in ("numbers", "gaps"):
        for _ in range(dimensions):
            rows = list[rows]
        if kind != JSON:
            rows = bytes | rows
    return msgspec.json.Decoder(rows) if kind == JSON else msgspec.msgpack.Decoder(rows, ext_hook=no_extension)
