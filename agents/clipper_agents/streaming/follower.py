"""A compacted topic, read whole by every process: no group, so nobody is rebalanced when it changes."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from mode import Service

from clipper_agents.kafka.reader import Record
from clipper_agents.kafka.retry import WORKERS
from clipper_agents.kafka.tailer import TopicTailer
from clipper_agents.streaming.faust_logs import LIBRARY
from clipper_stream.client.access import RIGHTS
from clipper_topics.connection import KafkaConnection

logger = logging.getLogger(__name__)

REFUSED_WAIT_S = 5.0
"""Between two attempts to follow a topic that an operator has forbidden meanwhile."""
FAILED_WAIT_S = 0.5

OnRecords = Callable[[list[Record]], object]


class Follower(Service):  # type: ignore[misc]
    """Hands every record of a topic to a callback, old ones first, new ones as they come.

    What a writer did not finish, an open or aborted transaction, is not handed over. `await caught_up.wait()` returns
    when all records that existed at the start have been.
    """

    logger = LIBRARY

    def __init__(self, kafka: KafkaConnection, topic: str, on_records: OnRecords, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._kafka, self._topic, self._on_records = kafka, topic, on_records
        self._positions: dict[TopicPartition, int] = {}
        self.caught_up = asyncio.Event()

    def followed_upto(self, partition: int = 0) -> int:
        """One past the last offset that was handed over, or that holds no record, as the end of a transaction."""
        return self._positions.get(TopicPartition(self._topic, partition), 0)

    @Service.task  # type: ignore[untyped-decorator]
    async def _follow(self) -> None:
        while not self.should_stop:
            try:
                await self._read()
            except RIGHTS as error:
                if not self.caught_up.is_set():
                    raise  # whoever follows cannot begin; once it has, what it knows stays right for a while
                logger.warning("following %s is not allowed any more: %r, trying on", self._topic, error)
                await self.sleep(REFUSED_WAIT_S)
            except KafkaError as error:
                logger.warning("following %s stopped: %r, starting again", self._topic, error)
                await self.sleep(FAILED_WAIT_S)

    async def _read(self) -> None:
        tailer = TopicTailer(self._kafka, isolation_level="read_committed", policy=WORKERS)
        try:
            partitions = await tailer.reader.partitions_of(self._topic)
            oldest = await tailer.reader.beginning_offsets(partitions)
            await tailer.begin_at(oldest | self._positions)
            while not self.should_stop:
                if not tailer.behind:
                    self.caught_up.set()
                for records in (await tailer.poll()).values():
                    self._on_records(records)
                self._positions = dict(tailer.positions)
        finally:
            await tailer.close()
