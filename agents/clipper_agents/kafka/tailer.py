"""Reads partitions to their ends, then follows what is written, outside any consumer group.

    start --> begin(starts): the ends are asked for --> poll while `behind` --> poll: what comes

Rules of this file:
- Each record is read once, in log order within its partition.
- A position is also behind offsets that hold no record, as the marker of a transaction.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from aiokafka import TopicPartition

from clipper_agents.kafka.clients import IsolationLevel, translated_errors
from clipper_agents.kafka.reader import NO_END, LogReader, Range, Record
from clipper_agents.kafka.retry import RetryPolicy
from clipper_topics.connection import KafkaConnection

POLL_S = 0.2
"""How long a poll waits when nothing comes, and a broker holds a fetch."""
FETCH_BYTES = 1 << 20


class TopicTailer:
    """One reading of partitions, without an end.

    Args:
        kafka: Where to read.
        isolation_level: Whether records of aborted transactions are read.
        policy: How long Kafka may be away.
        fetch_bytes: The most that one fetch holds of a partition.

    Attributes:
        reader: Answers questions about offsets.
        ends: Where the partitions ended when that was last asked.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        *,
        isolation_level: IsolationLevel,
        policy: RetryPolicy,
        fetch_bytes: int = FETCH_BYTES,
    ) -> None:
        self.reader = LogReader(
            kafka,
            isolation_level=isolation_level,
            policy=policy,
            fetch_bytes=fetch_bytes,
            fetch_wait_s=POLL_S,
        )
        self.ends: dict[TopicPartition, int] = {}

    @property
    def positions(self) -> Mapping[TopicPartition, int]:
        """Next offset of each partition."""
        return self.reader.positions

    @property
    def behind(self) -> list[TopicPartition]:
        """Partitions that are not read to their end, as it was when it was last asked for."""
        return [tp for tp, end in self.ends.items() if self.positions[tp] < end]

    async def begin(self, partitions: Iterable[TopicPartition]) -> None:
        """Connect, and read the partitions whole."""
        await self.reader.start()
        asked = list(partitions)
        await self.begin_at(await self.reader.beginning_offsets(asked))

    async def begin_at(
        self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int] | None = None
    ) -> None:
        """Read the partitions from these offsets on, and no others; `ends` when they have been asked for already."""
        await self.reader.start()
        self.ends = dict(ends) if ends is not None else await self.reader.end_offsets(starts)
        self.reader.assign({tp: Range(start, NO_END) for tp, start in starts.items()})

    async def look(self) -> None:
        """Ask where the partitions end now."""
        self.ends = await self.reader.end_offsets(self.positions)

    async def poll(
        self, partitions: Iterable[TopicPartition] | None = None, wait_s: float = POLL_S
    ) -> dict[TopicPartition, list[Record]]:
        """What has come, of these partitions or of all, or nothing after `wait_s` seconds.

        Raises:
            KafkaError: an error that does not pass, for example a missing right.
        """
        if partitions is None and not self.positions:
            await asyncio.sleep(wait_s)
        return await self.reader.fetch(partitions, wait_s=wait_s)

    async def close(self) -> None:
        """Disconnect."""
        await self.reader.close()


@asynccontextmanager
async def open_tailer(
    kafka: KafkaConnection, *, isolation_level: IsolationLevel, policy: RetryPolicy
) -> AsyncIterator[TopicTailer]:
    """A connected tailer for the time of the block.

    Raises:
        KafkaUnreachable: no broker answers.
        AccessRefused: Kafka does not let us in, or a right is missing.
    """
    tailer = TopicTailer(kafka, isolation_level=isolation_level, policy=policy)
    async with translated_errors(kafka):
        try:
            await tailer.reader.start()
            yield tailer
        finally:
            await tailer.close()
