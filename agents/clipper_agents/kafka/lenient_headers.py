"""Records with header names that are no UTF-8: aiokafka raises at them, again at each fetch, and the partition stands.

Rules of this file:
- Kafka takes any bytes as the name of a header, and clients in C, Go or Rust send them. What is wrong is replaced by
  U+FFFD: such a header is none of ours, and the record has others behind it that must be read.
- The usual way is aiokafka's compiled one. Only a batch that it cannot read is read again by its Python counterpart.
"""

import struct
from typing import Any

from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

_LENGTH = struct.Struct(">i")
_LENGTH_AT = 8
"""Bytes of the base offset, which come first."""


class KeptRecords:
    """The batches of one fetch, of which the one given last can be read again.

    Args:
        fetched: Bytes of a fetch response for one partition.
    """

    def __init__(self, fetched: bytes) -> None:
        self._fetched, self._start, self._stop = fetched, 0, 0
        self._records = MemoryRecords(fetched)
        self.has_next = self._records.has_next
        self.size_in_bytes = self._records.size_in_bytes

    def next_batch(self) -> Any:
        """The next batch, read by aiokafka."""
        self._start = self._stop
        (length,) = _LENGTH.unpack_from(self._fetched, self._start + _LENGTH_AT)
        self._stop += _LENGTH_AT + _LENGTH.size + length
        return self._records.next_batch()

    def last_batch(self) -> "LenientBatch":
        """The batch that `next_batch` gave last, from its beginning."""
        return LenientBatch(memoryview(self._fetched)[self._start : self._stop])


class LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # final to readers, and pinned
    """A batch that is read whatever its headers' names are."""

    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer: bytearray = _Lenient(self._buffer)


class _Lenient(bytearray):
    """Bytes of which each part can be decoded."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _Lenient(found) if isinstance(index, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        """The text, with U+FFFD for what is none."""
        return super().decode(encoding, errors)
