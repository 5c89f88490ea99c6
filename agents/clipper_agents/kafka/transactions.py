"""One transaction of a producer, of which a failure is told once.

When another producer with the transactional id begins, aiokafka fails everything that belongs to the transaction: the
futures of its records, the one of its end, and one a batch for who waits until there is room in it, for whom nobody
asks. Each of those would be logged as never retrieved, whenever it is collected.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaProducer


async def send_in_transaction(
    producer: AIOKafkaProducer, topic: str, partition: int, records: Iterable[tuple[bytes, bytes | None]]
) -> None:
    """Write records, all or none; they are there when this returns.

    Args:
        producer: Started, with a transactional id.
        topic: Where to.
        partition: Where to.
        records: Keys and values.

    Raises:
        ProducerFenced: another producer with the id has begun; none is written.
        KafkaError: it is not known whether they were written.
    """
    await producer.begin_transaction()
    end: Any = producer._txn_manager._transaction_waiter
    sent: list[asyncio.Future[Any]] = []
    try:
        for key, value in records:
            sent.append(await producer.send(topic, key=key, value=value, partition=partition))
        await asyncio.gather(*sent)
        await producer.commit_transaction()
    finally:
        batches = [batch for found in producer._message_accumulator._batches.values() for batch in found]
        for future in (end, *sent, *(batch._drain_waiter for batch in batches)):
            future.add_done_callback(_told)


def _told(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()
