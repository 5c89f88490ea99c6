"""A compacted topic, read whole by every process: no group, so nobody is rebalanced when it changes."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from mode import Service

from clipper_agents.kafka.retry import REQUEST_TIMEOUT_MS
from clipper_agents.streaming.faust_logs import LIBRARY
from clipper_stream.client.access import RIGHTS
from clipper_topics.connection import KafkaConnection

logger = logging.getLogger(__name__)

REFUSED_WAIT_S = 5.0
"""Between two attempts to follow a topic that an operator has forbidden meanwhile."""

OnRecords = Callable[[list[ConsumerRecord[Any, Any]]], None]


class Follower(Service):  # type: ignore[misc]
    """Hands every record of a topic to a callback, old ones first, new ones as they come.

    A restart hands over everything again, so the callback is idempotent. `await caught_up.wait()` returns when all
    records that existed at the start have been handed over.
    """

    logger = LIBRARY

    def __init__(self, kafka: KafkaConnection, topic: str, on_records: OnRecords, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._kafka, self._topic, self._on_records = kafka, topic, on_records
        self._next: dict[TopicPartition, int] = {}
        self._upto: dict[int, int] = {}
        self.caught_up = asyncio.Event()

    def followed_upto(self, partition: int = 0) -> int:
        """One past the last offset that was handed over, or that holds no record, as the end of a transaction."""
        return self._upto.get(partition, 0)

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
                await self.sleep(0.5)

    async def _read(self) -> None:
        consumer = AIOKafkaConsumer(
            **self._kafka.aiokafka(),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",  # what a writer did not finish is not seen by anybody
            fetch_max_wait_ms=250,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        try:
            await consumer.start()
            ends = await self._position(consumer)
            while not self.should_stop:
                if not self.caught_up.is_set() and all([await consumer.position(tp) >= ends[tp] for tp in ends]):
                    self.caught_up.set()
                for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                    self._on_records(records)
                    self._next[tp] = records[-1].offset + 1
                for tp in ends:
                    self._upto[tp.partition] = await consumer.position(tp)
        finally:
            await consumer.stop()

    async def _position(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
        while not (found := consumer.partitions_for_topic(self._topic)):
            consumer._client.add_topic(self._topic)
            await consumer._client.force_metadata_update()
            if self._topic in consumer._client.cluster.unauthorized_topics:
                raise TopicAuthorizationFailedError(self._topic)
            await self.sleep(0.1)
        partitions = [TopicPartition(self._topic, number) for number in sorted(found)]
        consumer.assign(partitions)
        for tp in partitions:
            if tp in self._next:
                consumer.seek(tp, self._next[tp])
            else:
                await consumer.seek_to_beginning(tp)
        ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        return ends
