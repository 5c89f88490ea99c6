"""Says whether a Kafka does what a deployment needs of it, by asking it to.

Rules of this file:
- A row says what was tried just now. What cannot be tried because of another row is left out.
- What is written is taken back. It is in a topic of the check's own, which is deleted unless it was there before.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypeAlias

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from clipper_agents.kafka.aiokafka_patches import LOG_APPEND_TIME
from clipper_agents.kafka.clients import administration, make_producer, newest_versions, started, transaction
from clipper_agents.kafka.consumer_groups import delete_group
from clipper_agents.kafka.retry import TIMEOUT_S
from clipper_agents.kafka.topics import ADVISED, delete_topics, ensure_specs, try_topic
from clipper_agents.streaming.membership import follow_members
from clipper_stream.client.access import check_access
from clipper_stream.errors import SetupError
from clipper_topics.catalogue import LARGEST_RECORD_BYTES, TIMESTAMP_TYPE, Catalogue, TopicCreation, TopicSpec
from clipper_topics.connection import KafkaConnection

State: TypeAlias = Literal["fine", "degraded", "missing"]


class CheckRow(NamedTuple):
    """One thing that a deployment needs: whether it is there, and what to do if it is not."""

    what: str
    state: State
    says: str


class NeededApi(NamedTuple):
    """A request to brokers: the version that is needed, the one that is better, and what is lost without that."""

    name: str
    key: int
    least: int
    better: int = 0
    without: str = ""


COSTS_CPU = "queries cost more CPU"
APIS = (
    NeededApi("Produce", 0, 3, 7, COSTS_CPU),
    NeededApi("Fetch", 1, 4, 11, f"{COSTS_CPU}, and no copy in the same rack is read"),
    NeededApi("ListOffsets", 2, 1),
    NeededApi("Metadata", 3, 4, 12, "topics have no ids, so one that was deleted and created again may go unnoticed"),
    NeededApi("OffsetCommit", 8, 2),
    NeededApi("OffsetFetch", 9, 2),
    NeededApi("JoinGroup", 11, 5),
    NeededApi("LeaveGroup", 13, 3),
    NeededApi("DescribeGroups", 15, 0),
    NeededApi("CreateTopics", 19, 1, 4, "brokers name no default of copies: set kafka.replication"),
    NeededApi("DeleteTopics", 20, 0),
    NeededApi("InitProducerId", 22, 0),
    NeededApi("AddPartitionsToTxn", 24, 0),
    NeededApi("EndTxn", 26, 0),
    NeededApi("DescribeConfigs", 32, 0),
    NeededApi("CreatePartitions", 37, 0),
    NeededApi("DeleteGroups", 42, 0),
)
"""Versions as of aiokafka 0.14, and of requests of our own."""


async def check_kafka(kafka: KafkaConnection, catalogue: Catalogue, creation: TopicCreation) -> list[CheckRow]:
    """Try what operators, routers, hosts and clients do; the user needs an operator's rights, and Delete on topics."""
    try:
        await check_access(kafka)
        async with administration(kafka) as admin:
            rows = [CheckRow("connection", "fine", f"{kafka.security_protocol} at {kafka.bootstrap}")]
            rows += await _versions(admin)
            if any(row.state == "missing" for row in rows):
                return rows
            rows += [await _topic(admin, kafka, spec, creation) for spec in catalogue.fixed_topics()]
    except SetupError as error:
        return [CheckRow("connection", "missing", str(error))]
    return rows + await _in_own_topic(kafka, catalogue, creation)


async def _versions(admin: AIOKafkaAdminClient) -> list[CheckRow]:
    """A row for each request that a broker knows in no version, or only in an older one."""
    offered, rows = await newest_versions(admin), list[CheckRow]()
    for api in APIS:
        most = offered.get(api.key, -1)
        if most < api.least:
            rows.append(CheckRow(api.name, "missing", f"version {api.least} is needed: upgrade the brokers"))
        elif most < api.better:
            rows.append(CheckRow(api.name, "degraded", f"no version {api.better}: {api.without}"))
    return rows or [CheckRow("versions", "fine", f"all {len(APIS)} requests")]


async def _topic(
    admin: AIOKafkaAdminClient, kafka: KafkaConnection, spec: TopicSpec, creation: TopicCreation
) -> CheckRow:
    what = f"topic {spec.name}"
    try:
        lacking = await try_topic(admin, kafka, spec, creation)
    except (KafkaError, SetupError) as error:
        return CheckRow(what, "missing", str(error) or type(error).__name__)
    return CheckRow(what, "degraded" if lacking else "fine", "; ".join(lacking) or "is there, or can be created")


async def _in_own_topic(kafka: KafkaConnection, catalogue: Catalogue, creation: TopicCreation) -> list[CheckRow]:
    """Write, read and be a member in a topic like those of the deployment."""
    name = f"{catalogue.prefix}.check"
    like = next(spec for spec in catalogue.fixed_topics() if spec.name == catalogue.predictions)
    own = replace(like, name=name, partitions=1)
    try:
        made = await ensure_specs(kafka, [own], [], creation)
    except SetupError as error:
        return [CheckRow("writing", "missing", f"not tried, for there is no topic {name}: {error}")]
    rows = [
        await _tried("transactions", _transaction(kafka, name)),
        await _tried("large records", _large_record(kafka, name)),
        await _tried("consumer groups", _membership(kafka, name)),
    ]
    if made.created:
        rows.append(await _tried("deleting", _deleted(kafka, name)))
    return rows


async def _tried(what: str, attempt: Awaitable[tuple[State, str]]) -> CheckRow:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return CheckRow(what, *await attempt)
    except (KafkaError, OSError, SetupError, TimeoutError) as error:
        return CheckRow(what, "missing", str(error) or type(error).__name__)


async def _transaction(kafka: KafkaConnection, topic: str) -> tuple[State, str]:
    stored = await _stored(kafka, topic, b"")
    if stored.timestamp_type != LOG_APPEND_TIME:
        return "degraded", f"timestamps are those of clients, {ADVISED[TIMESTAMP_TYPE]}"
    return "fine", "one record, with the broker's timestamp"


async def _large_record(kafka: KafkaConnection, topic: str) -> tuple[State, str]:
    size = LARGEST_RECORD_BYTES - 1024
    await _stored(kafka, topic, bytes(size))
    return "fine", f"{size:,} bytes"


async def _stored(kafka: KafkaConnection, topic: str, value: bytes) -> Any:
    """What the broker says of a record, which is taken back."""
    made = make_producer(kafka, transactional_id=topic, max_request_size=LARGEST_RECORD_BYTES)
    async with started(kafka, made) as producer, transaction(producer, commit=False):
        return await (await producer.send(topic, value, partition=0))


async def _membership(kafka: KafkaConnection, topic: str) -> tuple[State, str]:
    joined = asyncio.Event()
    member = asyncio.ensure_future(follow_members(kafka, topic, "check", topic, lambda _: joined.set()))
    try:
        await asyncio.wait([member, asyncio.ensure_future(joined.wait())], return_when=asyncio.FIRST_COMPLETED)
        if member.done():
            member.result()
    finally:
        member.cancel()
        await asyncio.wait([member])
    return "fine", "a static member with a session of 10 s"


async def _deleted(kafka: KafkaConnection, topic: str) -> tuple[State, str]:
    await delete_group(kafka, topic)
    await delete_topics(kafka, [topic])
    return "fine", f"group and topic {topic} are gone again"
