"""Consumers, producers and admin clients of the running system: the only place that builds them.

Rules of this file:
- Every consumer says its isolation level, reads header names that are no UTF-8, and belongs to no group unless it says.
- `started` and `administration` turn aiokafka's errors into `KafkaUnreachable` or `AccessRefused`, with the reason.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeAlias, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from clipper_agents.kafka import aiokafka_patches
from clipper_agents.kafka.aiokafka_patches import EmptyOffsets, TransactionMarker
from clipper_agents.kafka.errors import KafkaUnreachable, UnreadRecords
from clipper_agents.kafka.retry import TIMEOUT_S
from clipper_stream.client.access import explained
from clipper_stream.client.errors import BrokerUnavailable
from clipper_stream.client.kafka import stop
from clipper_stream.errors import SetupError
from clipper_topics.connection import KafkaConnection

IsolationLevel: TypeAlias = Literal["read_committed", "read_uncommitted"]
Client = TypeVar("Client", AIOKafkaConsumer, AIOKafkaProducer, AIOKafkaAdminClient)

METADATA_MAX_AGE_S = 5.0
"""Who leads a partition is looked up so often: a broker that was frozen, and leads no more, is then asked no more."""


def make_consumer(
    kafka: KafkaConnection,
    *,
    isolation_level: IsolationLevel,
    request_s: float = TIMEOUT_S,
    fetch_wait_s: float = 0.01,
    fetch_bytes: int = 1 << 20,
    metadata_max_age_s: float = METADATA_MAX_AGE_S,
    group: str | None = None,
    empty: EmptyOffsets | None = None,
    markers: dict[TransactionMarker, int] | None = None,
    **options: Any,
) -> AIOKafkaConsumer:
    """A consumer that commits nothing by itself; it is to be started, and stopped by `stop`.

    A broker holds a fetch that finds nothing for `fetch_wait_s`; one fetch holds at most `fetch_bytes` of a partition.
    Without a `group` it can neither subscribe nor commit. `markers` has the offset of each transaction marker added,
    `empty` those without a record. Further options are those of `AIOKafkaConsumer`.
    """
    aiokafka_patches.install_records()
    return AIOKafkaConsumer(
        **kafka.aiokafka(),
        group_id=group,
        client_rack=kafka.rack,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level=isolation_level,
        request_timeout_ms=int(request_s * 1000),
        metadata_max_age_ms=int(metadata_max_age_s * 1000),
        fetch_max_wait_ms=int(fetch_wait_s * 1000),
        max_partition_fetch_bytes=fetch_bytes,
        key_deserializer=aiokafka_patches.LeanKeys(empty, markers),
        **options,
    )


def make_producer(kafka: KafkaConnection, *, idempotent: bool = True, **options: Any) -> AIOKafkaProducer:
    """A producer that waits for all in-sync replicas, to be started; further options are those of `AIOKafkaProducer`.

    If it is `idempotent` Kafka stores each record once, in the order of the calls.
    """
    return AIOKafkaProducer(**kafka.aiokafka(), acks="all", enable_idempotence=idempotent, **options)


@asynccontextmanager
async def transaction(producer: AIOKafkaProducer, *, commit: bool = True) -> AsyncIterator[None]:
    """A transaction: what is sent in the block, and acknowledged in it, is written as one, or taken back.

    When another producer with the transactional id begins, aiokafka fails everything that belongs to the transaction:
    the one future of its end, and one a batch for who waits until there is room in it. Each of those that nobody asks
    for would be logged as never retrieved, whenever it is collected.

    Raises:
        ProducerFenced: another producer with the id has begun; none is written.
        KafkaError: it is not known whether they were written.
    """
    await producer.begin_transaction()
    end: Any = producer._txn_manager._transaction_waiter
    try:
        yield
        await (producer.commit_transaction() if commit else producer.abort_transaction())
    finally:
        batches = [batch for found in producer._message_accumulator._batches.values() for batch in found]
        for future in (end, *(batch._drain_waiter for batch in batches)):
            future.add_done_callback(_mark_retrieved)


async def write_markers(
    producer: AIOKafkaProducer, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, TransactionMarker]:
    """End a transaction without records in these partitions: the log of each gets a marker, given to no consumer.

    The broker writes it soon after this returns. Whoever reads it, known by the producer's id and epoch, has read all
    that stood in the log before. Errors as of `transaction`.
    """
    manager: Any = producer._txn_manager
    marked = [*partitions]
    async with transaction(producer, commit=False):
        for tp in marked:
            manager.maybe_add_partition_to_txn(tp)
    return {tp: TransactionMarker(tp.topic, tp.partition, manager.producer_id, manager.producer_epoch) for tp in marked}


async def send_in_transaction(
    producer: AIOKafkaProducer,
    topic: str,
    partition: int,
    records: Iterable[tuple[bytes, bytes | None]],
    read_upto: int | None = None,
) -> int | None:
    """Write a few records, all or none, and return the offset behind them. Errors as of `transaction`.

    The brokers keep them when this returns, and readers of what is committed see them a little later.

    Raises:
        UnreadRecords: the log does not end at `read_upto`, the next offset of who decided on it; none is written.
    """
    sent: list[asyncio.Future[Any]] = []
    async with transaction(producer):
        for key, value in records:
            sent.append(await producer.send(topic, key=key, value=value, partition=partition))
            sent[-1].add_done_callback(_mark_retrieved)
        offsets = [one.offset for one in await asyncio.gather(*sent)]
        if read_upto is not None and offsets and offsets[0] != read_upto:
            raise UnreadRecords(f"{topic} was read up to offset {read_upto}, and goes on to {offsets[0]}")
    return offsets[-1] + 1 if offsets else None


def _mark_retrieved(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()


def make_admin(kafka: KafkaConnection, request_s: float = TIMEOUT_S) -> AIOKafkaAdminClient:
    """An admin client; it is to be started, and closed."""
    return AIOKafkaAdminClient(**kafka.aiokafka(), request_timeout_ms=int(request_s * 1000))


def make_client(kafka: KafkaConnection) -> AIOKafkaClient:
    """A client for single requests; it is to be bootstrapped, and closed."""
    return AIOKafkaClient(**kafka.aiokafka())


async def connected(client: Client) -> Client:
    """The client, started; where that fails, or a rebalance cancels it, it is stopped again."""
    try:
        await client.start()
    except BaseException:
        await stop(client)
        raise
    return client


@asynccontextmanager
async def started(kafka: KafkaConnection, client: Client) -> AsyncIterator[Client]:
    """Start a client for the time of the block; errors as of `translated_errors`."""
    async with translated_errors(kafka):
        try:
            await client.start()
            yield client
        finally:
            await stop(client)


@asynccontextmanager
async def administration(kafka: KafkaConnection) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client for the time of the block; errors as of `translated_errors`."""
    async with started(kafka, make_admin(kafka)) as admin:
        yield admin


async def newest_versions(admin: AIOKafkaAdminClient) -> dict[int, int]:
    """Return the newest version of each request that all brokers know, by its number; one that is away is left out."""
    known = list[dict[int, int]]()
    for broker in admin._client.cluster.brokers():
        if (connection := await admin._client._get_conn(broker.nodeId)) is not None:
            known.append({api: newest for api, (_, newest) in connection._versions.items()})
    return {api: min(versions[api] for versions in known) for api in set.intersection(*map(set, known))}


@asynccontextmanager
async def translated_errors(kafka: KafkaConnection) -> AsyncIterator[None]:
    """Errors of aiokafka in the block become `KafkaUnreachable`, or `AccessRefused` where a right is missing."""
    try:
        yield
    except (KafkaError, TimeoutError) as error:
        raise await unreachable(kafka, error) from error


async def unreachable(kafka: KafkaConnection, error: BaseException) -> SetupError:
    """The error with the address and the reason in it: `KafkaUnreachable` or `AccessRefused`."""
    reason = await explained(kafka, "no Kafka answers", error)
    return KafkaUnreachable(str(reason)) if isinstance(reason, BrokerUnavailable) else reason


async def learn_leaders(consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition]) -> None:
    """Ask for leaders that are not known yet; aiokafka would send the question and sleep a tenth of a second."""
    client = consumer._client
    unknown = {tp.topic for tp in partitions if client.cluster.leader_for_partition(tp) is None}
    for topic in unknown:
        client.add_topic(topic)
    if unknown:
        await client.force_metadata_update()
