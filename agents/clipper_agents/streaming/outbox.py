"""Sending in prepared batches, one partition at a time, acknowledged as a batch.

Rules of this file:
- Records of one call reach their partition in order; with the idempotent producer also at most once a call.
- A batch that cannot even be queued (the broker is away) is offered again; a batch that was queued and failed raises.
  A topic that the producer knows nothing of is such an outage too: topics are there before a process starts.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError, UnknownTopicOrPartitionError

from clipper_agents.kafka.clients import make_producer
from clipper_agents.kafka.retry import retry
from clipper_topics.connection import KafkaConnection

Headers = Sequence[tuple[str, bytes]]
Record = tuple[bytes | None, bytes | None, Headers]
"""Key, value, headers."""
RecordsByTopic = Mapping[str, Sequence[Record]]
NO_RECORDS: RecordsByTopic = MappingProxyType({})

MAX_BATCH_BYTES = 900 * 1024
"""Largest produce batch: below the broker's default limit of a record batch (1 MiB)."""
BATCH_MAX_AGE_S = 3600.0
"""How long a batch may wait for its broker. aiokafka uses the request timeout for this too; but an expired batch leaves
a hole in the idempotent sequence, and then every later batch is refused (OutOfOrderSequenceNumber)."""
UNKNOWN_OFFSET = -1
"""Given by the broker for a batch that it had already stored when a retry arrived."""


def _as_list(headers: Headers) -> list[tuple[str, bytes]]:
    """Return headers as the list that aiokafka takes; most records share one that is a list already."""
    return headers if type(headers) is list else list(headers)


class Delivery:
    """Records that are being sent. Await `offsets()` for the broker's acknowledgement.

    Attributes:
        stamped_s: When the broker took the first, by its clock, in seconds since the epoch; None before, and where the
            topic keeps the timestamps of those who write.
    """

    __slots__ = ("_parts", "stamped_s")

    def __init__(self, parts: list[tuple[asyncio.Future[Any], int]]) -> None:
        self._parts = parts
        self.stamped_s: float | None = None

    async def offsets(self) -> list[int]:
        """Offset of each record, in order, `UNKNOWN_OFFSET` where the broker did not tell; an error if one is lost."""
        found: list[int] = []
        for future, count in self._parts:
            stored = await future
            base = stored.offset
            if self.stamped_s is None and stored.timestamp >= 0:
                self.stamped_s = stored.timestamp / 1000
            found.extend(range(base, base + count) if base >= 0 else [UNKNOWN_OFFSET] * count)
        return found


class Outbox:
    """Sends records through an aiokafka producer that somebody else starts and stops."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer

    async def submit(self, topic: str, partition: int, records: Iterable[Record]) -> Delivery:
        """Queue the records and return before they are acknowledged; one larger than a batch goes in one of its own.

        Whether the topic takes it is for the caller to know: a refused one leaves a hole in the idempotent sequence.
        """
        parts: list[tuple[asyncio.Future[Any], int]] = []
        batch = self._producer.create_batch()
        append = batch.append
        for key, value, headers in records:
            if append(key=key, value=value, timestamp=None, headers=_as_list(headers)) is None:
                parts.append(await self._queue(topic, partition, batch))
                batch = self._producer.create_batch()
                append = batch.append
                append(key=key, value=value, timestamp=None, headers=_as_list(headers))
        if batch.record_count():
            parts.append(await self._queue(topic, partition, batch))
        return Delivery(parts)

    async def send(self, topic: str, partition: int, records: Iterable[Record]) -> list[int]:
        """Queue records, wait until the broker has stored them, and return their offsets."""
        return await (await self.submit(topic, partition, records)).offsets()

    async def _queue(self, topic: str, partition: int, batch: Any) -> tuple[asyncio.Future[Any], int]:
        batch.close()
        stored = await retry(
            f"broker does not take records of {topic}-{partition}",
            partial(self._producer.send_batch, batch, topic, partition=partition),
            wait_s=0.0,  # the producer has waited
            passes=lambda error: isinstance(error, (KafkaTimeoutError, UnknownTopicOrPartitionError)),
        )
        return stored, batch.record_count()


def make_batch_producer(kafka: KafkaConnection, **options: Any) -> AIOKafkaProducer:
    """A producer of prepared batches, of which what is queued waits `BATCH_MAX_AGE_S` for its broker."""
    producer = make_producer(kafka, request_timeout_ms=10_000, max_batch_size=MAX_BATCH_BYTES, **options)
    producer._message_accumulator._batch_ttl = BATCH_MAX_AGE_S
    return producer
