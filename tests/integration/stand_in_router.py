"""A stand-in for the router: answers every query at once, as a test says."""

import asyncio
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from clipper_topics import codec
from clipper_topics.prediction import Prediction


def answer_everything(query):
    return [Prediction(query_id=query.query_id or "", application=query.application, output=1, confidence=1.0)]


class StandInRouter:
    """Queries in, predictions out, in the query's partition and with its key.

    Args:
        answering: The predictions for a query: none loses it, two answer it twice. A test may set another.
    """

    def __init__(self, kafka, catalogue, answering):
        self._kafka, self._catalogue, self.answering = kafka, catalogue, answering
        self.queries, self.records = [], []
        self._came = asyncio.Condition()

    async def run(self, ready):
        consumer = AIOKafkaConsumer(**self._kafka.aiokafka(), enable_auto_commit=False)
        async with consumer, AIOKafkaProducer(**self._kafka.aiokafka()) as producer:
            consumer.assign([TopicPartition(self._catalogue.queries, p) for p in range(self._catalogue.partitions)])
            await consumer.seek_to_end()
            for tp in consumer.assignment():
                await consumer.position(tp)
            ready.set()
            async for record in consumer:
                query = codec.queries.decode(record.value, record.headers)
                self.queries.append(query)
                self.records.append((record.partition, record.key))
                for prediction in self.answering(query):
                    value = codec.predictions.encode(prediction)
                    await producer.send(self._catalogue.predictions, value, record.key, partition=record.partition)
                async with self._came:
                    self._came.notify_all()

    async def has_read(self, count):
        async with self._came, asyncio.timeout(30):
            await self._came.wait_for(lambda: len(self.queries) >= count)


@asynccontextmanager
async def stand_in_router(kafka, catalogue, answering=answer_everything):
    """A router that runs for the time of the block, and answers what is asked from then on."""
    router, ready = StandInRouter(kafka, catalogue, answering), asyncio.Event()
    running = asyncio.create_task(router.run(ready))
    try:
        await asyncio.wait_for(ready.wait(), 30)
        yield router
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
