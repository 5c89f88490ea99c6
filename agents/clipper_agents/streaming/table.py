"""Faust tables whose rows count only once their changelog record is stored.

Rules of this file:
- One step = one transaction in the changelog partition: all of it is stored or nothing.
- The changelog first, committed; then the rows and the changelog's offset locally, in one write.
- A changelog partition has one writer (`partition_writer`): a process that has lost the partition, and does not know it
  yet, is refused. So of the rows with one key the last one counts, for a restore as for Kafka's compaction.
- A restore takes the partition over, and reads to the end that this has proved. The ends of other logs of the
  partition are proved in the same transaction (`ends`).
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import faust
import rocksdict
from aiokafka import ConsumerRecord, TopicPartition
from faust.stores import rocksdb

from clipper_agents.kafka.aiokafka_patches import TransactionMarker
from clipper_agents.kafka.reader import LogReader
from clipper_agents.streaming.databases import Database, open_anew
from clipper_agents.streaming.faust_logs import LIBRARY
from clipper_agents.streaming.outbox import UNKNOWN_OFFSET, Record
from clipper_agents.streaming.rocksdb_options import share_blocks


class StepWriter(Protocol):
    """The one writer of a changelog partition: a `PartitionWriter`."""

    async def take_over(self) -> Mapping[TopicPartition, TransactionMarker]: ...
    async def write(self, records: Iterable[Record], /) -> list[int]: ...
    async def stop(self) -> None: ...


OpenWriter = Callable[[str, int, Iterable[str]], StepWriter]
"""Gives the writer of a topic's partition, which marks other topics too, before it has taken anything over."""


class CheckedStore(rocksdb.Store):  # type: ignore[misc]
    """Faust's RocksDB store, but a corrupt database is noticed, and built anew from the changelog."""

    logger = LIBRARY

    def _open_for_partition(self, partition: int) -> Database:
        return open_anew(self.partition_path(partition), self._options)

    def _options(self) -> rocksdict.Options:
        found: rocksdict.Options = self.rocksdb_options.as_options()
        share_blocks(found)
        return found


class StepTable(faust.Table):  # type: ignore[misc]
    """A table of raw bytes by partition; `write` is durable when it returns.

    Attributes:
        ends: Where the logs ended that its writers have marked, when the partitions were taken over.
    """

    logger = LIBRARY

    def __init__(self, *args: Any, open_writer: OpenWriter, marked: Iterable[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, key_type=bytes, value_type=bytes, **kwargs)
        self._open_writer, self._marked = open_writer, [*marked]
        self._writers: dict[int, StepWriter] = {}
        self.ends: dict[TopicPartition, int] = {}

    def _new_store_by_url(self, url: Any) -> CheckedStore:
        return CheckedStore(url, self.app, self, table_name=self.name, loop=self.loop, options=self.options)

    def get_row(self, partition: int, key: bytes) -> bytes | None:
        """Return the row of a key, or None."""
        found: bytes | None = self._db(partition).get(key)
        return found

    def rows(self, partition: int) -> dict[bytes, bytes]:
        """Return all rows of a partition."""
        return {key: value for key, value in self._db(partition).items() if key != self.data.offset_key}

    async def write(self, partition: int, rows: Mapping[bytes, bytes]) -> None:
        """Store the rows: first in the changelog, then here.

        Raises:
            PartitionTakenOver: another process writes them now; none is stored.
        """
        offsets = await self._writers[partition].write([(key, value, ()) for key, value in rows.items()])
        self._write_local(partition, rows, offsets[-1])

    async def restore(self, reader: LogReader, partitions: Iterable[int]) -> int:
        """Take the changelog partitions over, and no others, and read them on from where the local rows end.

        Returns:
            The number of records read.
        """
        topic = self.changelog_topic.get_topic_name()
        owned = set(partitions)
        await self.stop_writers(self._writers.keys() - owned)
        for partition in owned - self._writers.keys():
            self._writers[partition] = self._open_writer(topic, partition, self._marked)
        named = await reader.end_offsets(
            TopicPartition(name, partition) for partition in owned for name in (topic, *self._marked)
        )
        taken = await asyncio.gather(*(self._writers[partition].take_over() for partition in owned))
        markers = {tp: marker for found in taken for tp, marker in found.items()}
        self.ends = await reader.proven_ends(named, markers)
        starts: dict[TopicPartition, int | None] = {}
        for tp in (TopicPartition(topic, partition) for partition in owned):
            starts[tp] = start = self._persisted(tp.partition) + 1
            if start > self.ends[tp]:
                self.log.warning("rows of partition %d are ahead of their changelog: rebuilding", tp.partition)
                self._clear(tp.partition)
                starts[tp] = 0
        return await reader.read(starts, self._apply, self.ends)

    async def stop_writers(self, partitions: Iterable[int] | None = None) -> None:
        """Write no more to these partitions, by default to none at all."""
        going = [*(self._writers if partitions is None else partitions)]
        await asyncio.gather(*(self._writers.pop(partition).stop() for partition in going))

    def _apply(self, tp: TopicPartition, records: list[ConsumerRecord[Any, Any]]) -> None:
        rows = {record.key: record.value for record in records if record.key is not None and record.value is not None}
        self._write_local(tp.partition, rows, records[-1].offset)

    def _write_local(self, partition: int, rows: Mapping[bytes, bytes], offset: int) -> None:
        """Write rows with the changelog offset that they include; `UNKNOWN_OFFSET`: a restore reads on from before."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in rows.items():
            batch.put(key, value)
        if offset != UNKNOWN_OFFSET:
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
