"""Sends the records of one client, each at once, and waits until Kafka has them."""

import asyncio
from collections.abc import Iterable
from typing import Any

from aiokafka.errors import KafkaError, MessageSizeTooLargeError, UnknownTopicOrPartitionError

from clipper_stream.client.access import explained, failure
from clipper_stream.client.errors import BrokerUnavailable, RecordTooLarge
from clipper_stream.client.kafka import make_producer, stop
from clipper_topics.codec import headers_of
from clipper_topics.connection import KafkaConnection

MOST_RECORD_BYTES = 1024 * 1024
"""Of a record with its key and headers: what brokers take by default."""
IN_FLIGHT = 1_000
"""Records given to the producer and not acknowledged; more wait in line here, where one wakes at a time."""


class RecordSender:
    """A producer that awaits every acknowledgement; a record not taken within `timeout_s` seconds is given up."""

    def __init__(self, kafka: KafkaConnection, timeout_s: float, content_type: str) -> None:
        self._kafka = kafka
        self._headers = headers_of(content_type)
        self._in_flight = asyncio.Semaphore(IN_FLIGHT)
        timeout_ms = max(1, int(timeout_s * 1000))
        self._producer = make_producer(kafka, request_timeout_ms=timeout_ms, max_request_size=MOST_RECORD_BYTES)

    async def open(self) -> None:
        """Connect; raises `BrokerUnavailable` or `AccessRefused`, as all methods do."""
        try:
            await self._producer.start()
        except BaseException as error:
            await self.close()
            if isinstance(error, (KafkaError, OSError)):
                raise await explained(self._kafka, "cannot send", error) from error
            raise

    async def partitions(self, topic: str) -> int:
        try:
            return len(await self._producer.partitions_for(topic))
        except UnknownTopicOrPartitionError as error:
            where = self._kafka.bootstrap
            message = f"Kafka at {where} has no topic {topic}: run `clipper-stream topics create`, or give its prefix"
            raise BrokerUnavailable(message) from error
        except KafkaError as error:
            raise failure(self._kafka, f"cannot see topic {topic}", error) from error

    async def begin(
        self, topic: str, partition: int, key: bytes | None, value: bytes, headers: Iterable[tuple[str, bytes]] = ()
    ) -> "asyncio.Future[Any]":
        """Queue a record, and return the future record metadata: there once every in-sync replica has the record.

        The future's own errors are aiokafka's; `failed` turns them into those of this module.

        Raises:
            RecordTooLarge: nothing is sent.
            BrokerUnavailable: the record could not be queued in time.
        """
        await self._in_flight.acquire()
        try:
            sent: asyncio.Future[Any] = await self._producer.send(
                topic,
                value,
                key=key,
                partition=partition,
                headers=[*self._headers, *headers] if headers else self._headers,
            )
        except MessageSizeTooLargeError as error:
            self._in_flight.release()
            what = f"a record of {len(value)} bytes for {topic}"
            raise RecordTooLarge(f"{what}: Kafka takes at most {MOST_RECORD_BYTES}, send fewer rows") from error
        except BaseException as error:
            self._in_flight.release()
            if isinstance(error, KafkaError):
                raise self.failed(topic, error) from error
            raise
        sent.add_done_callback(self._acknowledged)
        return sent

    async def offset(self, topic: str, sent: "asyncio.Future[Any]") -> int:
        """Return a record's offset, once every in-sync replica has it; errors as of `begin`."""
        try:
            return int((await sent).offset)
        except KafkaError as error:
            raise self.failed(topic, error) from error

    def failed(self, topic: str, error: BaseException) -> Exception:
        """Return the error to raise for one of aiokafka's about a record of this topic."""
        return failure(self._kafka, f"Kafka did not take a record for {topic}", error)

    def _acknowledged(self, sent: "asyncio.Future[Any]") -> None:
        self._in_flight.release()
        if not sent.cancelled():
            sent.exception()  # who waits for the answer has it; a call that was cancelled does not ask any more

    async def close(self) -> None:
        """Send what is left, or give it up when its time is over, and disconnect."""
        await stop(self._producer)
