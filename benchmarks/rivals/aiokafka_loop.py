"""The loop one writes by hand on aiokafka and uvloop, at its fastest: getmany, one model call, prepared batches.

At least once: offsets are committed once a second, after everything that was sent before is acknowledged. While a round
is on its way to the broker the next one is computed.
"""

import asyncio
import signal
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from common import BATCH, BOOTSTRAP, COMMIT_S, GROUP, PREDICTIONS, QUERIES, answers, decode, encode

BATCH_BYTES = 512 * 1024


async def main() -> None:
    consumer = AIOKafkaConsumer(
        QUERIES,
        bootstrap_servers=BOOTSTRAP,
        group_id=GROUP,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    producer = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, acks="all", max_batch_size=BATCH_BYTES)
    async with consumer, producer:
        scoring = asyncio.create_task(score_all(consumer, producer))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, scoring.cancel)
        await asyncio.wait([scoring])
        if not scoring.cancelled():
            scoring.result()


async def score_all(consumer: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
    now_s = asyncio.get_running_loop().time
    committed_s, on_the_way = now_s(), []
    while True:
        fetched = await consumer.getmany(timeout_ms=200, max_records=BATCH)
        records = [record for part in fetched.values() for record in part]
        values = [encode(answer) for answer in answers([decode(record.value) for record in records])] if records else []
        await asyncio.gather(*on_the_way)
        if now_s() - committed_s > COMMIT_S:
            # positions are past the records of this round, whose answers are not written yet
            await commit_before(consumer, fetched)
            committed_s = now_s()
        on_the_way = await send(producer, records, values)


async def commit_before(consumer: AIOKafkaConsumer, fetched: dict[Any, list[Any]]) -> None:
    """Commit up to the records that were fetched last, without them."""
    offsets = {part: await consumer.position(part) for part in consumer.assignment()}
    await consumer.commit({**offsets, **{part: records[0].offset for part, records in fetched.items() if records}})


async def send(producer: AIOKafkaProducer, records: list[Any], values: list[bytes]) -> list[Any]:
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


if __name__ == "__main__":
    uvloop.run(main())
