"""The one writer of a partition, by Kafka's fencing of transactional producers (KIP-98).

    take_over --> write --> write --> ... --> another process takes over --> `PartitionTakenOver`

Rules of this file:
- A write is a transaction: all of its records are in the log, or none is, for whoever reads committed records.
- Who takes a partition over ends what an earlier writer has begun, and refuses all that it still sends. Then it ends a
  transaction without a record. Where its marker stands, which no consumer is given, the log of all earlier writers
  ends. So this end is known, and not one that a broker has named. Other logs are marked likewise.
"""

import contextlib
from collections.abc import Iterable
from functools import partial

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidProducerIdMapping, InvalidTransactionTimeout, KafkaError, ProducerFenced

from clipper_agents.kafka.aiokafka_patches import TransactionMarker
from clipper_agents.kafka.clients import connected, transaction, write_markers
from clipper_agents.kafka.retry import retry
from clipper_agents.streaming.outbox import NO_RECORDS, Outbox, Record, RecordsByTopic, make_batch_producer
from clipper_stream.client.kafka import stop
from clipper_stream.errors import ClipperError
from clipper_topics.connection import KafkaConnection

TRANSACTION_TIMEOUTS_MS = (300_000, 60_000, 10_000)
"""A broker ends the transaction of a writer that says nothing for so long, and refuses that writer then. The first is
longer than any outage that is to be waited out; where a process takes over, nobody waits for it. The others are for
brokers that allow no more (`transaction.max.timeout.ms`): there a long outage costs the writer its partition."""
ATTEMPTS = 5
"""Of a takeover, when others take over at the same time."""


class PartitionTakenOver(ClipperError):
    """Another process writes the partition now; nothing of this write is in the log."""


class WriterForgotten(ClipperError):
    """Kafka has forgotten the writer, who wrote nothing for days; nothing of this write is in the log."""


class PartitionWriter:
    """Writes to one partition of a topic, until another process takes it over.

    The transactional id is the topic's name and the partition's number. The same partition of the topics `marked` gets
    a marker too.
    """

    def __init__(self, kafka: KafkaConnection, topic: str, partition: int, marked: Iterable[str]) -> None:
        self._kafka, self._topic, self._partition = kafka, topic, partition
        self._marked = [TopicPartition(name, partition) for name in (topic, *marked)]
        self._producer: AIOKafkaProducer | None = None

    async def take_over(self) -> dict[TopicPartition, TransactionMarker]:
        """Become the one writer; the markers behind all that earlier writers have written.

        Waits while Kafka is away.

        Raises:
            PartitionTakenOver: others take it over again and again.
            KafkaError: a right is missing.
        """
        for _ in range(ATTEMPTS):
            await self.stop()
            try:
                self._producer = await self._accepted()
                return await write_markers(self._producer, self._marked)
            except ProducerFenced:
                continue
        raise self._taken_over()

    async def write(self, records: Iterable[Record], beside: RecordsByTopic = NO_RECORDS) -> list[int]:
        """Write records, and those of the same partition of other topics beside them, all or none; their offsets.

        Raises:
            PartitionTakenOver: another process writes the partition now.
            WriterForgotten: perhaps one does, nobody knows; whoever takes over next does.
            KafkaError: it is not known whether they are written; whoever takes over next knows.
        """
        if self._producer is None:
            raise self._taken_over()
        try:
            async with transaction(self._producer):
                outbox = Outbox(self._producer)
                for topic, others in beside.items():
                    await outbox.send(topic, self._partition, others)
                return await outbox.send(self._topic, self._partition, records)
        except ProducerFenced as error:
            await self.stop()
            raise self._taken_over() from error
        except KafkaError as error:
            if not isinstance(error.__cause__, InvalidProducerIdMapping):
                raise
            raise WriterForgotten(
                f"Kafka has forgotten the transactional id {self._name} (transactional.id.expiration.ms): this process "
                "begins anew, and loses nothing"
            ) from error

    async def stop(self) -> None:
        """Write no more; what was begun and not ended is taken back by the next takeover."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(ProducerFenced):
                await stop(producer)

    @property
    def _name(self) -> str:
        return f"{self._topic}-{self._partition}"

    async def _accepted(self) -> AIOKafkaProducer:
        """A producer with the longest transactions that the broker allows."""
        *longer, least = TRANSACTION_TIMEOUTS_MS
        for timeout_ms in longer:
            with contextlib.suppress(InvalidTransactionTimeout):
                return await retry(f"takeover of {self._name}", partial(self._started, timeout_ms))
        return await retry(f"takeover of {self._name}", partial(self._started, least))

    async def _started(self, timeout_ms: int) -> AIOKafkaProducer:
        producer = make_batch_producer(self._kafka, transactional_id=self._name, transaction_timeout_ms=timeout_ms)
        return await connected(producer)

    def _taken_over(self) -> PartitionTakenOver:
        return PartitionTakenOver(
            f"another process writes partition {self._partition} of {self._topic}: this one was stopped for too long, "
            "or another has its instance name"
        )
