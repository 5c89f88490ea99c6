"""Fetched records as small objects: aiokafka's own cost more to make than everything else that it does with a record.

Rules of this file:
- A lean record has the attributes of aiokafka's `ConsumerRecord` that this project reads, and no others.
- aiokafka looks its `PartitionRecords` and `MemoryRecords` up by name when a fetch arrives; there is no other place to
  give it a class. So `install` is for worker processes, which run nothing but this project, and never for a client in
  somebody's program.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from aiokafka.consumer import fetcher

from clipper_agents.kafka.lenient_headers import KeptRecords, LenientBatch


class LeanRecord(msgspec.Struct, gc=False):
    """One record of a topic."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """Milliseconds since the epoch."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class LeanPartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka is untyped
    """The records of one partition in a fetch, unpacked by aiokafka's generator."""

    next_fetch_offset: int
    _records_iterator: Iterator[LeanRecord] | None

    def __iter__(self) -> Iterator[LeanRecord]:
        if self._records_iterator is None:
            self._records_iterator = self._unpacked()
        return self._records_iterator

    def __next__(self) -> LeanRecord:
        return next(iter(self))

    def _unpack_records(self) -> None:
        """No generator yet: one that nobody reads would keep itself and the fetch until the collector comes."""

    def _unpacked(self) -> Iterator[LeanRecord]:
        while True:
            try:
                yield from super()._unpack_records()
            except UnicodeDecodeError:  # a header's name, which may be any bytes
                yield from self._unpack_again(self._records.last_batch())
            else:
                return

    def _unpack_again(self, batch: LenientBatch) -> Iterator[LeanRecord]:
        for record in batch:
            if record.offset >= self.next_fetch_offset:
                self.next_fetch_offset = record.offset + 1
                yield self._consumer_record(self._tp, record)
        self.next_fetch_offset = max(self.next_fetch_offset, batch.next_offset)

    def _consumer_record(self, tp: Any, record: Any) -> LeanRecord:
        return LeanRecord(
            tp.topic,
            tp.partition,
            record.offset,
            record.timestamp,
            record.key,
            record.value,
            tuple(record.headers),
        )


def install() -> None:
    """Have every consumer of this process make lean records."""
    fetcher.PartitionRecords = LeanPartitionRecords
    fetcher.MemoryRecords = KeptRecords
