"""Sends the records of one client, each at once, and waits until Kafka has them."""

import asyncio

from aiokafka.errors import KafkaError, MessageSizeTooLargeError, UnknownTopicOrPartitionError

from clipper_stream.client.access import RIGHTS, explained, refused_right
from clipper_stream.client.errors import BrokerUnavailable, RecordTooLarge
from clipper_stream.client.kafka import make_producer
from clipper_topics.codec import headers_of
from clipper_topics.connection import KafkaConnection

IN_FLIGHT = 1_000
"""Records given to the producer and not acknowledged; more wait in line here, where one wakes at a time."""


class RecordSender:
    """A producer that awaits every acknowledgement.

    Args:
        kafka: Where to send.
        timeout_s: How long to wait for an acknowledgement, in seconds; a record not taken by then is given up.
        content_type: Content type of the values.
    """

    def __init__(self, kafka: KafkaConnection, timeout_s: float, content_type: str) -> None:
        self._kafka, self._bootstrap = kafka, kafka.bootstrap
        self._headers = headers_of(content_type)
        self._in_flight = asyncio.Semaphore(IN_FLIGHT)
        self._producer = make_producer(kafka, request_timeout_ms=max(1, int(timeout_s * 1000)))

    async def open(self) -> None:
        """Connect.

        Raises:
            BrokerUnavailable: nobody answers there.
            AccessRefused: the credentials are not enough.
        """
        try:
            await self._producer.start()
        except BaseException as error:
            await self.close()
            if isinstance(error, (KafkaError, OSError)):
                raise await explained(self._kafka, "cannot send", error) from error
            raise

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has.

        Raises:
            BrokerUnavailable: there is no such topic.
            AccessRefused: this user may not see it.
        """
        try:
            return len(await self._producer.partitions_for(topic))
        except UnknownTopicOrPartitionError as error:
            message = f"Kafka at {self._bootstrap} has no topic {topic}: start clipper-stream there, or give its prefix"
            raise BrokerUnavailable(message) from error
        except RIGHTS as error:
            raise refused_right(self._kafka, error) from error
        except KafkaError as error:
            raise BrokerUnavailable(f"topic {topic} at {self._bootstrap}: {error!r}") from error

    async def send(self, topic: str, partition: int, key: bytes | None, value: bytes) -> int:
        """The record's offset, once every in-sync replica has it.

        Raises:
            RecordTooLarge: it does not fit into a request.
            BrokerUnavailable: no acknowledgement in time, or a refusal.
            AccessRefused: this user may not write to the topic.
        """
        try:
            async with self._in_flight:
                sent = await self._producer.send(topic, value, key=key, partition=partition, headers=self._headers)
                return int((await sent).offset)
        except MessageSizeTooLargeError as error:
            message = f"a record of {len(value)} bytes for {topic} is larger than Kafka takes: send fewer rows"
            raise RecordTooLarge(message) from error
        except RIGHTS as error:
            raise refused_right(self._kafka, error) from error
        except KafkaError as error:
            message = f"Kafka at {self._bootstrap} did not take a record for {topic}: {error!r}; is it running?"
            raise BrokerUnavailable(message) from error

    async def close(self) -> None:
        """Send what is left, or give it up when its time is over, and disconnect."""
        await self._producer.stop()
