"""A stand-in for the router: answers every query at once, as a test says."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.prediction import Prediction
from clipper_topics.query import Query

Answering = Callable[[Query], list[Prediction]]


def answer_everything(query: Query) -> list[Prediction]:
    return [Prediction(query_id=query.query_id or "", application=query.application, output=1, confidence=1.0)]


def answer_by_default(query: Query, reason: str = "late") -> Prediction:
    return Prediction(query_id=query.query_id or "", application=query.application, default=True, reason=reason)


class StandInRouter:
    """Queries in, predictions out, in the query's partition and with its key.

    Args:
        answering: The predictions for a query: none loses it, two answer it twice. A test may set another.
    """

    def __init__(self, kafka: KafkaConnection, catalogue: Catalogue, answering: Answering) -> None:
        self._kafka, self._catalogue, self.answering = kafka, catalogue, answering
        self.queries: list[Query] = []
        self.records: list[tuple[int, bytes | None]] = []

    async def run(self, ready: asyncio.Event) -> None:
        consumer = AIOKafkaConsumer(**self._kafka.aiokafka(), enable_auto_commit=False, auto_offset_reset="earliest")
        async with consumer, AIOKafkaProducer(**self._kafka.aiokafka()) as producer:
            consumer.assign([TopicPartition(self._catalogue.queries, p) for p in range(self._catalogue.partitions)])
            ready.set()
            while True:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    for record in records:
                        await self._answer(record, producer)

    async def _answer(self, record, producer: AIOKafkaProducer) -> None:
        query = codec.queries.decode(record.value, record.headers)
        self.queries.append(query)
        self.records.append((record.partition, record.key))
        for prediction in self.answering(query):
            value = codec.predictions.encode(prediction)
            await producer.send(self._catalogue.predictions, value, record.key, partition=record.partition)


@asynccontextmanager
async def stand_in_router(
    kafka: KafkaConnection, catalogue: Catalogue, answering: Answering = answer_everything
) -> AsyncIterator[StandInRouter]:
    """A router that runs for the time of the block."""
    router, ready = StandInRouter(kafka, catalogue, answering), asyncio.Event()
    running = asyncio.create_task(router.run(ready))
    try:
        await asyncio.wait_for(ready.wait(), 30)
        yield router
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
