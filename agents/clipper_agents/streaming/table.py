"""Faust tables whose rows count only once their changelog record is stored.

Rules of this file:
- One step = one transaction in the changelog partition: all of it is stored or nothing.
- The changelog first, committed; then the rows and the changelog's offset locally, in one write.
- A changelog partition has one writer (`partition_writer`): a process that has lost the partition, and does not know it
  yet, is refused. So of the rows with one key the last one counts, for a restore as for Kafka's compaction.
- A restore takes the partition over, and reads to the end that this has proved. The ends of other logs of the
  partition are proved in the same transaction (`ends`).
- What takes as long as a partition has rows is a thread's: a process that does not answer Kafka loses its partitions.
  Databases are opened and read by the restore, once, and stay open: their partitions may come back.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import faust
from aiokafka import ConsumerRecord, TopicPartition

from clipper_agents.kafka.reader import LogReader
from clipper_agents.streaming.databases import Database, open_anew, set_aside
from clipper_agents.streaming.outbox import NO_RECORDS, UNKNOWN_OFFSET, RecordsByTopic
from clipper_agents.streaming.partition_writer import PartitionWriter

OpenWriter = Callable[[str, int, Iterable[str]], PartitionWriter]
"""Gives the writer of a topic's partition, which marks other topics too, before it has taken anything over."""


_OFFSET = b"\0offset"
"""Key of the changelog offset that the rows of a database include."""


class TransactionalTable(faust.Table):  # type: ignore[misc]
    """A table of raw bytes by partition, in a database each beside Faust's store; `write` is durable when it returns.

    Attributes:
        ends: Where the logs ended that its writers have marked, when the partitions were taken over.
    """

    def __init__(self, *args: Any, open_writer: OpenWriter, marked: Iterable[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, key_type=bytes, value_type=bytes, **kwargs)
        self._open_writer, self._marked = open_writer, [*marked]
        self._writers: dict[int, PartitionWriter] = {}
        self._databases: dict[int, Database] = {}
        self.ends: dict[TopicPartition, int] = {}

    def path(self, partition: int) -> Path:
        return Path(self.app.conf.tabledir) / f"{self.name}-{partition}"

    def get_row(self, partition: int, key: bytes) -> bytes | None:
        return self._databases[partition].get(key)

    def items(self, partition: int, first: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows of a partition from a key on, in the order of the keys' bytes."""
        return ((key, value) for key, value in self._databases[partition].items(first) if key != _OFFSET)

    def estimated_size(self, partition: int) -> int:
        return self._databases[partition].estimated_size

    async def write(
        self, partition: int, rows: Mapping[bytes, bytes | None], beside: RecordsByTopic = NO_RECORDS
    ) -> None:
        """Store the rows, and delete those without a value: first in the changelog, then here.

        The records `beside` go to the same partition of other topics, in the transaction of the changelog. Errors as of
        `PartitionWriter.write`.
        """
        offsets = await self._writers[partition].write([(key, value, ()) for key, value in rows.items()], beside)
        self._write_local(partition, rows, offsets[-1])

    def drop(self, partition: int, keys: Iterable[bytes]) -> None:
        """Drop rows here that the changelog has deleted."""
        self._write_local(partition, dict.fromkeys(keys), UNKNOWN_OFFSET)

    async def restore(self, reader: LogReader, partitions: Iterable[int]) -> int:
        """Take these partitions over, and no others; read on where the local rows end, and return how many records."""
        topic = self.changelog_topic.get_topic_name()
        owned = set(partitions)
        await self.stop_writers(self._writers.keys() - owned)
        for partition in owned - self._databases.keys():
            self._databases[partition] = await asyncio.to_thread(open_anew, self.path(partition))
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
                self._begin_anew(tp.partition)
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
        puts = [(key, value) for key, value in rows.items() if value is not None]
        if offset != UNKNOWN_OFFSET:
            puts.append((_OFFSET, b"%d" % offset))
        self._databases[partition].write(puts, [key for key, value in rows.items() if value is None])

    def _begin_anew(self, partition: int) -> None:
        self._databases.pop(partition).close()
        set_aside(self.path(partition), "its rows are ahead of their changelog")
        self._databases[partition] = open_anew(self.path(partition))

    def _persisted(self, partition: int) -> int:
        return int(self._databases[partition].get(_OFFSET) or -1)
