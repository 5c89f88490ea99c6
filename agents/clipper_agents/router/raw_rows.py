"""Rows that stay bytes until it is known that somebody wants them, and what they should be.

Rules of this file:
- A row is decoded as what its application's input spec allows. A megabyte of maps where numbers are wanted ends at the
  first one, and never becomes a million objects.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from clipper_stream.errors import InvalidInput
from clipper_stream.query.inputs import RowSpec
from clipper_topics.codec import JSON, MSGPACK, UndecodableRecord, no_extension

LARGE_BYTES = 1 << 15
"""Of a record: a smaller one is decoded at once, which takes half the time."""
Number = int | float | bool
_NULL = {JSON: b"null", MSGPACK: b"\xc0"}


class RawRow(NamedTuple):
    """One row as the record has it.

    Attributes:
        raw: Its bytes.
        kind: Their content type.
    """

    raw: msgspec.Raw
    kind: str

    @property
    def is_null(self) -> bool:
        """Whether the row is null."""
        return memoryview(self.raw) == _NULL[self.kind]

    def decode(self, spec: RowSpec) -> Any:
        """The row, as `decode_queries` would have it.

        Raises:
            InvalidInput: it is no row of the spec.
        """
        dimensions = len(spec.shape) if spec.shape is not None else 1
        try:
            return _decoder(self.kind, spec.dtype if not spec.numeric else "numbers", dimensions).decode(self.raw)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"a row of {len(bytes(self.raw))} bytes: {error}") from error


def raw_rows(rows: msgspec.Raw, kind: str) -> list[msgspec.Raw] | None:
    """The rows of a packed query, each still undecoded; None for null.

    Raises:
        UndecodableRecord: they are no list.
    """
    try:
        found: list[msgspec.Raw] | None = _decoder(kind, "rows", 0).decode(rows)
    except (ValueError, RecursionError) as error:
        raise UndecodableRecord(f"not {kind}: {error} - at `$.inputs`") from error
    return found


@lru_cache(maxsize=64)
def _decoder(kind: str, wanted: str, dimensions: int) -> Any:
    types: dict[str, Any] = {
        "rows": list[msgspec.Raw] | None,
        "text": str,
        "bytes": dict[str, str] if kind == JSON else bytes | dict[str, str],
        "json": Any,
        "numbers": Number,
    }
    found: Any = types[wanted]
    if wanted == "numbers":
        for _ in range(dimensions):
            found = list[found]
        if kind != JSON:
            found = bytes | found
    return msgspec.json.Decoder(found) if kind == JSON else msgspec.msgpack.Decoder(found, ext_hook=no_extension)
