"""The loop one writes by hand on aiokafka and uvloop: getmany, one model call, and the answers out.

    aiokafka_loop.py             prepared batches, its fastest
    aiokafka_loop.py send        `send` for each answer, as most such loops do

At least once: offsets are committed once a second, after everything that was sent before is acknowledged. In between
nothing waits for the broker, until `OPEN_ROUNDS` rounds are on their way.
"""

import asyncio
import signal
import sys
from collections import deque
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from common import BATCH, BOOTSTRAP, COMMIT_S, GROUP, LINGER_MS, PREDICTIONS, QUERIES, answers, decode, encode

BATCH_BYTES = 512 * 1024
OPEN_ROUNDS = 16


async def main() -> None:
    consumer = AIOKafkaConsumer(
        QUERIES,
        bootstrap_servers=BOOTSTRAP,
        group_id=GROUP,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=BOOTSTRAP, acks="all", max_batch_size=BATCH_BYTES, linger_ms=LINGER_MS
    )
    async with consumer, producer:
        scoring = asyncio.create_task(score_all(consumer, producer))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, scoring.cancel)
        await asyncio.wait([scoring])
        if not scoring.cancelled():
            scoring.result()


async def score_all(consumer: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
    now_s = asyncio.get_running_loop().time
    committed_s, on_the_way = now_s(), deque[Any]()
    while True:
        fetched = await consumer.getmany(timeout_ms=200, max_records=BATCH)
        due = now_s() - committed_s > COMMIT_S
        while on_the_way and (due or len(on_the_way) > OPEN_ROUNDS):
            await on_the_way.popleft()
        if due:
            await commit_before(consumer, fetched)
            committed_s = now_s()
        records = [record for part in fetched.values() for record in part]
        if records:
            values = [encode(answer) for answer in answers([decode(record.value) for record in records])]
            on_the_way.append(asyncio.gather(*await send_answers(producer, records, values)))


async def commit_before(consumer: AIOKafkaConsumer, fetched: dict[Any, list[Any]]) -> None:
    """Commit up to the records that were fetched last, without them."""
    offsets = {part: await consumer.position(part) for part in consumer.assignment()}
    await consumer.commit({**offsets, **{part: records[0].offset for part, records in fetched.items() if records}})


async def send_each(producer: AIOKafkaProducer, records: list[Any], values: list[bytes]) -> list[Any]:
    """The answers one by one; their deliveries."""
    return [
        await producer.send(PREDICTIONS, value, record.key, record.partition)
        for record, value in zip(records, values, strict=True)
    ]


async def send_batches(producer: AIOKafkaProducer, records: list[Any], values: list[bytes]) -> list[Any]:
    """The answers as one prepared batch a partition, or several where they are long; their deliveries."""
    batches: dict[int, Any] = {}
    deliveries = []
    for record, value in zip(records, values, strict=True):
        batch = batches.get(record.partition)
        if batch is not None and batch.append(key=record.key, value=value, timestamp=None) is not None:
            continue
        if batch is not None:
            deliveries.append(await producer.send_batch(batch, PREDICTIONS, partition=record.partition))
        batches[record.partition] = batch = producer.create_batch()
        batch.append(key=record.key, value=value, timestamp=None)
    for partition, batch in batches.items():
        deliveries.append(await producer.send_batch(batch, PREDICTIONS, partition=partition))
    return deliveries


send_answers = send_each if sys.argv[1:] == ["send"] else send_batches

if __name__ == "__main__":
    uvloop.run(main())
