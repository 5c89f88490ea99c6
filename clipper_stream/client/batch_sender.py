"""Many records to one topic: aiokafka's prepared batches, a few microseconds a record instead of twenty for `send`."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from clipper_stream.client.access import RIGHTS, refused_right
from clipper_stream.client.kafka import MAX_BATCH_BYTES, make_producer
from clipper_topics.connection import KafkaConnection

MAX_REQUEST_BYTES = 4 * MAX_BATCH_BYTES
RecordHeaders: TypeAlias = list[tuple[str, bytes]]
TopicRecord: TypeAlias = tuple[int, bytes | None, bytes | None, RecordHeaders]
"""Partition, key, value and headers."""


class BatchSender:
    """Appends records to one batch a partition.

    A batch is handed to the producer with its first record and stays open until the producer sends it, so records that
    come while a request is in flight share the next one, and the first never waits for company. A retried request may
    write its records twice; queries have ids, so a pipeline answers them once.

    Attributes:
        failures: Batches that were not written: the broker refused them, or could not be reached in time.
        first_failure: The first of these failures.
        refused: The first of them that no repetition changes, a right that is missing.
    """

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer, self._topic = producer, topic
        self._open: dict[int, Any] = {}
        self._in_flight: set[asyncio.Future[Any]] = set()
        self.failures = 0
        self.first_failure: str | None = None
        self.refused: KafkaError | None = None

    async def send(self, records: Iterable[TopicRecord]) -> None:
        """Append the records; waits only where the producer's buffer is full."""
        batches = self._open
        for partition, key, value, headers in records:
            batch = batches.get(partition)
            if batch is None or batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
                batch = self._producer.create_batch()
                batch.append(timestamp=None, key=key, value=value, headers=headers)  # the first always fits
                delivered = await self._producer.send_batch(batch, self._topic, partition=partition)
                batches[partition] = batch
                self._in_flight.add(delivered)
                delivered.add_done_callback(lambda done, at=partition, sent=batch: self._delivered(at, sent, done))

    async def flush(self) -> None:
        """Wait until every record is acknowledged or has failed."""
        if self._in_flight:
            await asyncio.wait(self._in_flight)

    def _delivered(self, partition: int, batch: Any, delivered: "asyncio.Future[Any]") -> None:
        self._in_flight.discard(delivered)
        if self._open.get(partition) is batch:  # one that failed before it was sent would still take records
            del self._open[partition]
        if not delivered.cancelled() and (error := delivered.exception()) is not None:
            self.failures += 1
            self.first_failure = self.first_failure or repr(error)
            if isinstance(error, RIGHTS):
                self.refused = self.refused or error


@asynccontextmanager
async def batch_sender(connection: KafkaConnection, topic: str) -> AsyncIterator[BatchSender]:
    """A sender with a producer of its own, so that topics do not wait for each other's requests.

    Raises:
        AccessRefused: at the end, when this user may not write to the topic.
    """
    # without idempotence, its batches may grow until they are sent
    async with make_producer(connection, max_request_size=MAX_REQUEST_BYTES) as producer:
        sender = BatchSender(producer, topic)
        yield sender
        await sender.flush()
        if sender.refused is not None:
            raise refused_right(connection, sender.refused) from sender.refused
