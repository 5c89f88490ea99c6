"""A compacted topic, read whole by every process: no group, so nobody is rebalanced when it changes."""

import asyncio
from collections.abc import Callable

from aiokafka import TopicPartition

from clipper_agents.kafka.reader import FOLLOW_BYTES, FOLLOW_WAIT_S, LogReader, Record
from clipper_agents.kafka.retry import RESTART_WAIT_S, WORKERS, is_outage, retry
from clipper_stream.client.access import RIGHTS
from clipper_topics.connection import KafkaConnection


class TopicFollower:
    """Hands every record of a topic to a callback, old ones first, new ones as they come.

    What a writer did not finish, an open or aborted transaction, is not handed over.

    Attributes:
        caught_up: Set when all records that existed at the start have been handed over.
    """

    def __init__(self, kafka: KafkaConnection, topic: str, on_records: Callable[[list[Record]], object]) -> None:
        self._kafka, self._topic, self._on_records = kafka, topic, on_records
        self._positions: dict[TopicPartition, int] = {}
        self.caught_up = asyncio.Event()

    def followed_upto(self) -> int:
        """One past the last offset of partition 0 that was handed over, or that holds no record."""
        return self._positions.get(TopicPartition(self._topic, 0), 0)

    async def run(self) -> None:
        """Follow the topic until cancelled.

        Raises:
            KafkaError: this user may not read it. Once all was read, a right that is taken away is waited for: what is
                known stays right for a while.
        """

        def passes(error: Exception) -> bool:
            return is_outage(error) and (self.caught_up.is_set() or not isinstance(error, RIGHTS))

        await retry(f"following {self._topic} stopped", self._read, wait_s=RESTART_WAIT_S, passes=passes)

    async def _read(self) -> None:
        reader = LogReader(self._kafka, policy=WORKERS, fetch_bytes=FOLLOW_BYTES, fetch_wait_s=FOLLOW_WAIT_S)
        try:
            oldest = await reader.beginning_offsets(await reader.partitions_of(self._topic))
            await reader.follow(oldest | self._positions)
            while True:
                if not reader.behind:
                    self.caught_up.set()
                for records in (await reader.fetch(wait_s=FOLLOW_WAIT_S)).values():
                    self._on_records(records)
                self._positions = dict(reader.positions)
        finally:
            await reader.close()
