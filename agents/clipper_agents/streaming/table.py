"""Faust tables whose rows count only once their changelog record is stored.

Rules of this file:
- One step = one batch of rows = one batch in the changelog partition: all of it is stored or nothing.
- The changelog first, acknowledged; then the rows and the changelog's offset locally, in one write.
- A restore keeps, for each key, the row that `newer` prefers: a process that lost its partition and did not know it yet
  may have appended older rows.
- The local offset never passes a record that was not read: if this process is the one that lost its partition, what the
  new owner has appended before its own last batch is not here yet.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import faust
import rocksdict
from aiokafka import ConsumerRecord, TopicPartition
from faust.stores import rocksdb

from clipper_agents.kafka.reader import LogReader, sure_ends
from clipper_agents.streaming.databases import Database, open_anew
from clipper_agents.streaming.faust_logs import LIBRARY
from clipper_agents.streaming.outbox import Outbox

Newer = Callable[[bytes, bytes], bool]
"""newer(candidate, current): whether the candidate value replaces the current one."""


class CheckedStore(rocksdb.Store):  # type: ignore[misc]
    """Faust's RocksDB store, but a corrupt database is noticed, and built anew from the changelog."""

    logger = LIBRARY

    def _open_for_partition(self, partition: int) -> Database:
        return open_anew(self.partition_path(partition), self.rocksdb_options.as_options)


class StepTable(faust.Table):  # type: ignore[misc]
    """A table of raw bytes by partition; `write` is durable when it returns."""

    logger = LIBRARY

    def __init__(self, *args: Any, newer: Newer, **kwargs: Any) -> None:
        super().__init__(*args, key_type=bytes, value_type=bytes, **kwargs)
        self._newer = newer

    def _new_store_by_url(self, url: Any) -> CheckedStore:
        return CheckedStore(url, self.app, self, table_name=self.name, loop=self.loop, options=self.options)

    def get_row(self, partition: int, key: bytes) -> bytes | None:
        """Return the row of a key, or None."""
        found: bytes | None = self._db(partition).get(key)
        return found

    def rows(self, partition: int) -> dict[bytes, bytes]:
        """Return all rows of a partition."""
        return {key: value for key, value in self._db(partition).items() if key != self.data.offset_key}

    async def write(self, outbox: Outbox, partition: int, rows: Mapping[bytes, bytes]) -> None:
        """Store the rows: first in the changelog, then here."""
        topic = self.changelog_topic.get_topic_name()
        offsets = await outbox.send(topic, partition, [(key, value, ()) for key, value in rows.items()])
        first = self._persisted(partition) + 1
        alone = offsets == [*range(first, first + len(offsets))]
        self._write_local(partition, rows, offsets[-1] if alone else None)

    async def restore(self, reader: LogReader, partitions: Iterable[int]) -> int:
        """Read the changelog partitions on from where the local rows end, and return the number of records."""
        topic = self.changelog_topic.get_topic_name()
        starts = {TopicPartition(topic, partition): self._persisted(partition) + 1 for partition in partitions}
        ends = await sure_ends(reader, starts)
        for tp, start in starts.items():
            if start > ends[tp]:
                self.log.warning("rows of partition %d are ahead of their changelog: rebuilding", tp.partition)
                self._clear(tp.partition)
                starts[tp] = 0
        return await reader.read(starts, self._apply)

    def _apply(self, tp: TopicPartition, records: list[ConsumerRecord[Any, Any]]) -> None:
        best: dict[bytes, bytes] = {}
        for record in records:
            if record.key is None or record.value is None:
                continue
            current = best.get(record.key) or self.get_row(tp.partition, record.key)
            if current is None or self._newer(record.value, current):
                best[record.key] = record.value
        self._write_local(tp.partition, best, records[-1].offset)

    def _write_local(self, partition: int, rows: Mapping[bytes, bytes], offset: int | None) -> None:
        """Write rows with the changelog offset that they include; None: a restore reads on from the offset before."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in rows.items():
            batch.put(key, value)
        if offset is not None:
            batch.put(self.data.offset_key, str(offset).encode())
        self._db(partition).write(batch)

    def _clear(self, partition: int) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key in self._db(partition).keys():  # noqa: SIM118 (no dictionary)
            batch.delete(key)
        self._db(partition).write(batch)

    def _persisted(self, partition: int) -> int:
        found = self._db(partition).get(self.data.offset_key)
        return int(found) if found is not None else -1

    def _db(self, partition: int) -> Database:
        found: Database = self.data._db_for_partition(partition)
        return found
