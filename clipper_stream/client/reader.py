"""Reads the predictions topic from the moment it is opened on, and hands answers to who waits for them.

Rules of this file:
- The position is known before `open` returns, so that no answer to a later query is missed.
- Many clients share the topic: of a record that nobody here waits for only the id is decoded.
- When reading ends for any reason, every waiting call is failed: none hangs.
"""

import asyncio

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord

from clipper_stream.client.access import failure
from clipper_stream.client.kafka import assigned_consumer, stop_consumer
from clipper_stream.client.pending_answers import Waiting
from clipper_topics.codec import Codec, UndecodableRecord, predictions
from clipper_topics.connection import KafkaConnection

POLL_MS = 1_000
"""Only how often the loop wakes when nothing comes; a record is delivered when it is there."""


class PredictionId(msgspec.Struct):
    """The part of a prediction that says whose it is."""

    query_id: str


_ids = Codec(PredictionId)


class PredictionReader:
    """A consumer of all partitions, without a group."""

    def __init__(self, kafka: KafkaConnection, topic: str, waiting: Waiting) -> None:
        self._kafka, self._topic = kafka, topic
        self._waiting = waiting
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self, partitions: int) -> None:
        """Stand at the end of every partition and read on from there; errors are those of `assigned_consumer`."""
        self._consumer = await assigned_consumer(
            self._kafka, self._topic, at_end=True, isolation_level="read_uncommitted", partitions=partitions
        )
        self._task = asyncio.create_task(self._read(self._consumer), name=f"read {self._topic}")
        self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._consumer is not None:
            await stop_consumer(self._consumer)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            fetched = await consumer.getmany(timeout_ms=POLL_MS)
            for records in fetched.values():
                for record in records:
                    self._hand_over(record)

    def _hand_over(self, record: ConsumerRecord) -> None:
        try:
            if _ids.decode(record.value, record.headers).query_id in self._waiting:
                self._waiting.resolve(predictions.decode(record.value, record.headers))
        except UndecodableRecord:
            return  # no prediction: its query, if it is ours, times out and says where to look

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            error = task.exception()
            what = f"reading {self._topic} ended (open a new client)"
            self._waiting.fail(lambda: failure(self._kafka, what, error))
