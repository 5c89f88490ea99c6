"""What does Kafka itself cost on this path? The hops of a pipeline on bare aiokafka, with nothing between them.

    python benchmarks/rivals/echo.py echo BOOTSTRAP PREFIX           queries -> predictions
    python benchmarks/rivals/echo.py router BOOTSTRAP PREFIX         queries -> requests, outputs -> predictions
    python benchmarks/rivals/echo.py host BOOTSTRAP PREFIX           requests -> outputs

`echo` has the two hops of a pipeline with colocated models; `router` and `host` together have the four of one with
hosts: a process each, and one frame for all the queries that were fetched together, like the real ones. Each writes a
prediction record a query, about as long as a real one, and is at least once: sends are awaited before offsets are
committed, once a second. No state, no deadlines, no selection, no cache, no model.

Prints `ready` when it has its partitions, and ends on SIGTERM.
"""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord

from clipper_topics.catalogue import Catalogue
from clipper_topics.prediction import ModelAnswer, PolicyRef, Prediction

COMMIT_S = 1.0
BATCH_BYTES = 512 * 1024
FRAME_QUERIES = 1_000
"""A frame stays below the broker's limit of a megabyte."""
MODEL, VERSION = "echo", "1"

Out = tuple[int, bytes | None, bytes]
"""Partition, key and value."""
Step = Callable[[list[ConsumerRecord]], Iterable[Out]]


class Id(msgspec.Struct):
    """All that an echo needs of a query."""

    query_id: str


_from_json, _from_msgpack = msgspec.json.Decoder(Id), msgspec.msgpack.Decoder(Id)
_to_json, _to_msgpack = msgspec.json.Encoder(), msgspec.msgpack.Encoder()
_frames = msgspec.msgpack.Decoder(list[Out])


def answered(partition: int, key: bytes | None, value: bytes) -> Out:
    """The prediction record for a query record."""
    decoder = _from_json if value.startswith(b"{") else _from_msgpack
    answer = ModelAnswer(model="digits", version="1", propensity=1.0, output=3, latency_ms=1.25)
    prediction = Prediction(
        query_id=decoder.decode(value).query_id,
        application="digits",
        output=3,
        confidence=1.0,
        policy=PolicyRef(name="single"),
        models=[answer],
        query_offset=123_456,
        queried_at_ms=1_700_000_000_000,
        predicted_at_ms=1_700_000_000_001,
        latency_ms=1.25,
    )
    return partition, key, _to_json.encode(prediction)


def answer(records: list[ConsumerRecord]) -> Iterable[Out]:
    return (answered(record.partition, record.key, record.value) for record in records)


def frame(records: list[ConsumerRecord]) -> Iterable[Out]:
    for first in range(0, len(records), FRAME_QUERIES):
        part = records[first : first + FRAME_QUERIES]
        yield 0, None, _to_msgpack.encode([(record.partition, record.key, record.value) for record in part])


def pass_on(records: list[ConsumerRecord]) -> Iterable[Out]:
    return [(record.partition, None, record.value) for record in records]


def unframe(records: list[ConsumerRecord]) -> Iterable[Out]:
    return (answered(*query) for record in records for query in _frames.decode(record.value))


def hops(role: str, catalogue: Catalogue) -> list[tuple[str, str, Step]]:
    """Source topic, target topic and step of each hop of a role."""
    requests = catalogue.requests(MODEL, VERSION)
    by_role: dict[str, list[tuple[str, str, Step]]] = {
        "echo": [(catalogue.queries, catalogue.predictions, answer)],
        "router": [(catalogue.queries, requests, frame), (catalogue.outputs, catalogue.predictions, unframe)],
        "host": [(requests, catalogue.outputs, pass_on)],
    }
    return by_role[role]


async def hop(bootstrap: str, source: str, target: str, step: Step, ready: asyncio.Event) -> None:
    """Read, step, send, await, commit; until cancelled."""
    consumer = AIOKafkaConsumer(
        source,
        bootstrap_servers=bootstrap,
        group_id=f"{source}-readers",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", max_batch_size=BATCH_BYTES, max_request_size=8 * BATCH_BYTES
    )
    async with consumer, producer:
        ready.set()
        loop = asyncio.get_running_loop()
        committed_s = loop.time()
        while True:
            fetched = await consumer.getmany(timeout_ms=1_000)
            records = [record for part in fetched.values() for record in part]
            if records:
                await send(producer, target, step(records))
            if records and loop.time() - committed_s > COMMIT_S:
                await consumer.commit()
                committed_s = loop.time()


async def send(producer: AIOKafkaProducer, target: str, records: Iterable[Out]) -> None:
    """Send in prepared batches, one or more a partition, and wait until all are written."""
    open_batches: dict[int, Any] = {}
    deliveries = []
    for partition, key, value in records:
        batch = open_batches.get(partition)
        if batch is not None and batch.append(timestamp=None, key=key, value=value) is not None:
            continue
        if batch is not None:
            deliveries.append(await producer.send_batch(batch, target, partition=partition))
        batch = open_batches[partition] = producer.create_batch()
        batch.append(timestamp=None, key=key, value=value)
    for partition, batch in open_batches.items():
        deliveries.append(await producer.send_batch(batch, target, partition=partition))
    await asyncio.gather(*deliveries)


async def main(role: str, bootstrap: str, prefix: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    work, readies = [], []
    for source, target, step in hops(role, Catalogue(prefix=prefix)):
        readies.append(asyncio.Event())
        work.append(asyncio.create_task(hop(bootstrap, source, target, step, readies[-1])))
    await asyncio.gather(*(ready.wait() for ready in readies))
    print("ready", flush=True)
    ending = asyncio.create_task(ended.wait())
    finished, _ = await asyncio.wait([ending, *work], return_when=asyncio.FIRST_COMPLETED)
    for task in [*work, ending]:
        task.cancel()
    await asyncio.gather(*work, ending, return_exceptions=True)
    for task in finished - {ending}:
        task.result()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
