"""Reads the predictions topic from the moment it is opened on, and hands answers to who waits for them.

Rules of this file:
- The position is known before `open` returns, so that no answer to a later query is missed.
- Many clients share the topic: of a record that nobody here waits for only the id is decoded.
- When reading ends for any reason, every waiting call is failed: none hangs.
"""

import asyncio
from collections.abc import Callable
from typing import TypeAlias

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord

from clipper_stream.client.access import failure
from clipper_stream.client.errors import InvalidQuery
from clipper_stream.client.kafka import consumer_at_end, stop
from clipper_topics.codec import Codec, UndecodableRecord, content_type, predictions
from clipper_topics.connection import KafkaConnection
from clipper_topics.prediction import Prediction

POLL_MS = 1_000
"""Only how often the loop wakes when nothing comes; a record is delivered when it is there."""


class PredictionId(msgspec.Struct):
    """The part of a prediction that says whose it is."""

    query_id: str
    application: str


_ids = Codec(PredictionId)
Asked: TypeAlias = tuple[int, str, str]
"""Partition, query id and application of a query: no other query has the same three."""


class Waiting:
    """The calls that wait for an answer. After `fail` every later call fails the same way."""

    def __init__(self) -> None:
        self._futures: dict[Asked, asyncio.Future[Prediction]] = {}
        self._failure: Callable[[], Exception] | None = None

    def __len__(self) -> int:
        return len(self._futures)

    def __contains__(self, asked: Asked) -> bool:
        return asked in self._futures

    def begin(self, asked: Asked) -> asyncio.Future[Prediction]:
        """Return the future answer to the query, until `end`.

        Raises:
            InvalidQuery: another call waits for the same query.
        """
        if self._failure is not None:
            raise self._failure()
        if asked in self._futures:
            raise InvalidQuery(f"query {asked[1]!r} is being asked by another call: wait for it, or give another id")
        future = self._futures[asked] = asyncio.get_running_loop().create_future()
        return future

    def end(self, asked: Asked) -> None:
        """Forget the query."""
        future = self._futures.pop(asked)
        if future.done() and not future.cancelled():
            future.exception()  # a failure that nobody awaited any more is no news for the loop's logger

    def resolve(self, partition: int, prediction: Prediction) -> None:
        """Hand the answer to who waits for it; an answer that nobody waits for, or a second one, is dropped."""
        future = self._futures.get((partition, prediction.query_id, prediction.application))
        if future is not None and not future.done():
            future.set_result(prediction)

    def fail(self, failure: Callable[[], Exception]) -> None:
        """Fail every call that waits and every later one, each with an exception of its own; the first reason stays."""
        if self._failure is not None:
            return
        self._failure = failure
        for future in self._futures.values():
            if not future.done():
                future.set_exception(failure())


class PredictionReader:
    """A consumer of all partitions, without a group."""

    def __init__(self, kafka: KafkaConnection, topic: str, waiting: Waiting) -> None:
        self._kafka, self._topic = kafka, topic
        self._waiting = waiting
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self, partitions: int) -> None:
        """Stand at the end of every partition and read on from there; errors are those of `consumer_at_end`."""
        self._consumer = await consumer_at_end(self._kafka, self._topic, partitions=partitions)
        self._task = asyncio.create_task(self._read(self._consumer), name=f"read {self._topic}")
        self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._consumer is not None:
            await stop(self._consumer)

    async def ended(self) -> None:
        """Return when nothing is read any more."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            fetched = await consumer.getmany(timeout_ms=POLL_MS)
            for records in fetched.values():
                for record in records:
                    self._hand_over(record)

    def _hand_over(self, record: ConsumerRecord) -> None:
        try:
            kind = content_type(record.headers)
            head = _ids.decode_as(kind, record.value)
            if (record.partition, head.query_id, head.application) in self._waiting:
                self._waiting.resolve(record.partition, predictions.decode_as(kind, record.value))
        except UndecodableRecord:
            return  # no prediction: its query, if it is ours, times out and says where to look

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            error = task.exception()
            what = f"reading {self._topic} ended (open a new client)"
            self._waiting.fail(lambda: failure(self._kafka, what, error))
