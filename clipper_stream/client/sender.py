"""Sends the records of one client, each at once, and waits until Kafka has them."""

import asyncio

from aiokafka.errors import KafkaError, MessageSizeTooLargeError, UnknownTopicOrPartitionError

from clipper_stream.client.access import explained, failure
from clipper_stream.client.errors import BrokerUnavailable, RecordTooLarge
from clipper_stream.client.kafka import make_producer
from clipper_topics.codec import headers_of
from clipper_topics.connection import KafkaConnection

IN_FLIGHT = 1_000
"""Records given to the producer and not acknowledged; more wait in line here, where one wakes at a time."""


class RecordSender:
    """A producer that awaits every acknowledgement; a record not taken within `timeout_s` seconds is given up."""

    def __init__(self, kafka: KafkaConnection, timeout_s: float, content_type: str) -> None:
        self._kafka = kafka
        self._headers = headers_of(content_type)
        self._in_flight = asyncio.Semaphore(IN_FLIGHT)
        self._producer = make_producer(kafka, request_timeout_ms=max(1, int(timeout_s * 1000)))

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
        """How many partitions the topic has."""
        try:
            return len(await self._producer.partitions_for(topic))
        except UnknownTopicOrPartitionError as error:
            where = self._kafka.bootstrap
            message = f"Kafka at {where} has no topic {topic}: run `clipper-stream topics create`, or give its prefix"
            raise BrokerUnavailable(message) from error
        except KafkaError as error:
            raise failure(self._kafka, f"cannot see topic {topic}", error) from error

    async def send(self, topic: str, partition: int, key: bytes | None, value: bytes) -> int:
        """The record's offset, once every in-sync replica has it; raises `RecordTooLarge` before anything is sent."""
        try:
            async with self._in_flight:
                sent = await self._producer.send(topic, value, key=key, partition=partition, headers=self._headers)
                return int((await sent).offset)
        except MessageSizeTooLargeError as error:
            message = f"a record of {len(value)} bytes for {topic} is larger than Kafka takes: send fewer rows"
            raise RecordTooLarge(message) from error
        except KafkaError as error:
            raise failure(self._kafka, f"Kafka did not take a record for {topic}", error) from error

    async def close(self) -> None:
        """Send what is left, or give it up when its time is over, and disconnect."""
        await self._producer.stop()
