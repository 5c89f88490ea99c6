"""Faust tables whose rows count only once their changelog record is stored.

Rules of this file:
- One step = one transaction in the changelog partition: all of it is stored or nothing.
- The changelog first, committed; then the rows and the changelog's offset locally, in one write.
- A changelog partition has one writer (`partition_writer`): a process that has lost the partition, and does not know it
  yet, is refused. So of the rows with one key the last one counts, for a restore as for Kafka's compaction.
- A restore takes the partition over, and reads to the end that this has proved. The ends of other logs of the
  partition are proved in the same transaction (`ends`).
- What takes as long as a partition has rows is a thread's: a process that does not answer Kafka loses its partitions.
  Databases are opened by the restore, since no heartbeat is sent while Faust assigns partitions, and stay open.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import faust
import rocksdict
from aiokafka import ConsumerRecord, TopicPartition
from faust.stores import rocksdb

from clipper_agents.kafka.aiokafka_patches import TransactionMarker
from clipper_agents.kafka.reader import LogReader
from clipper_agents.streaming.databases import Database, forget_broken, open_unread, set_aside
from clipper_agents.streaming.faust_logs import LIBRARY
from clipper_agents.streaming.outbox import NO_RECORDS, UNKNOWN_OFFSET, Record, RecordsByTopic
from clipper_agents.streaming.rocksdb_options import share_blocks


class StepWriter(Protocol):
    """The one writer of a changelog partition: a `PartitionWriter`."""

    async def take_over(self) -> Mapping[TopicPartition, TransactionMarker]: ...
    async def write(self, records: Iterable[Record], beside: RecordsByTopic, /) -> list[int]: ...
    async def stop(self) -> None: ...


OpenWriter = Callable[[str, int, Iterable[str]], StepWriter]
"""Gives the writer of a topic's partition, which marks other topics too, before it has taken anything over."""


class CheckedStore(rocksdb.Store):  # type: ignore[misc]
    """Faust's RocksDB store, but a corrupt database is noticed, and built anew from the changelog."""

    logger = LIBRARY

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._checked: set[int] = set()

    async def check(self, partition: int) -> None:
        """Read every row of a partition, once, in a thread; begin anew if one cannot be read."""
        if partition in self._checked:
            return
        if not await asyncio.to_thread(self._db_for_partition(partition).is_readable):
            del self._dbs[partition]
        forget_broken(self.partition_path(partition))
        self._checked.add(partition)

    def begin_anew(self, partition: int, reason: str) -> None:
        """Drop all rows of a partition."""
        self._dbs.pop(partition).close()
        set_aside(self.partition_path(partition), reason)
        forget_broken(self.partition_path(partition))

    def persisted_offset(self, tp: Any) -> None:
        """Leave it to the restore to know."""

    def revoke_partitions(self, table: Any, tps: Any) -> None:
        """Keep the databases of partitions that may come back."""

    async def assign_partitions(self, table: Any, tps: Any, generation_id: int = 0) -> None:
        """Leave it to the restore to open databases."""

    def _open_for_partition(self, partition: int) -> Database:
        return open_unread(self.partition_path(partition), self._options)

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

    def items(self, partition: int, first: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows of a partition from a key on, in the order of the keys' bytes."""
        return ((key, value) for key, value in self._db(partition).items(first) if key != self.data.offset_key)

    def estimated_size(self, partition: int) -> int:
        """Return about how many rows a partition has; `Database.estimated_size`."""
        return self._db(partition).estimated_size

    async def write(
        self, partition: int, rows: Mapping[bytes, bytes | None], beside: RecordsByTopic = NO_RECORDS
    ) -> None:
        """Store the rows, and delete those without a value: first in the changelog, then here.

        The records `beside` go to the same partition of other topics, in the transaction of the changelog.

        Raises:
            PartitionTakenOver: another process writes them now; none is stored.
        """
        offsets = await self._writers[partition].write([(key, value, ()) for key, value in rows.items()], beside)
        self._write_local(partition, rows, offsets[-1])

    def drop(self, partition: int, keys: Iterable[bytes]) -> None:
        """Drop rows here that the changelog has deleted."""
        self._write_local(partition, dict.fromkeys(keys), UNKNOWN_OFFSET)

    async def restore(self, reader: LogReader, partitions: Iterable[int]) -> int:
        """Take the changelog partitions over, and no others, and read them on from where the local rows end.

        Returns:
            The number of records read.
        """
        topic = self.changelog_topic.get_topic_name()
        owned = set(partitions)
        await self.stop_writers(self._writers.keys() - owned)
        for partition in owned:
            await self.data.check(partition)
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
                self.data.begin_anew(tp.partition, "its rows are ahead of their changelog")
                starts[tp] = 0
        return await reader.read(starts, self._apply, self.ends)

    async def stop_writers(self, partitions: Iterable[int] | None = None) -> None:
        """Write no more to these partitions, by default to none at all."""
        going = [*(self._writers if partitions is None else partitions)]
        await asyncio.gather(*(self._writers.pop(partition).stop() for partition in going))

    def _apply(self, tp: TopicPartition, records: list[ConsumerRecord[Any, Any]]) -> None:
        rows = {record.key: record.value for record in records if record.key is not None}
        self._write_local(tp.partition, rows, records[-1].offset)

    def _write_local(self, partition: int, rows: Mapping[bytes, bytes | None], offset: int) -> None:
        """Write rows with the changelog offset that they include; `UNKNOWN_OFFSET`: a restore reads on from before."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in rows.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        if offset != UNKNOWN_OFFSET:
            batch.put(self.data.offset_key, str(offset).encode())
        self._db(partition).write(batch)

    def _persisted(self, partition: int) -> int:
        found = self._db(partition).get(self.data.offset_key)
        return int(found) if found is not None else -1

    def _db(self, partition: int) -> Database:
        found: Database = self.data._db_for_partition(partition)
        return found
