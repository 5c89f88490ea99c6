"""Reads what Kafka says of a deployment besides its records: brokers, topics, and who reads what how far.

Rules of this file:
- Requests time out quickly and are asked again, of another broker: one that is frozen must not hide the others.
- The cluster is asked as it is; nothing is created, joined or committed.
- Who stands still is told from who is slow by two looks, a second apart at least.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any, Self

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError
from aiokafka.protocol.metadata import MetadataRequest

from clipper_agents.control.plan import wanted_hosts
from clipper_agents.control.state import Manifests
from clipper_agents.kafka.clients import administration, make_admin
from clipper_agents.kafka.consumer_groups import describe_group, instance_of, lag_of
from clipper_agents.kafka.reader import LogReader, Range, Record
from clipper_agents.kafka.retry import STATUS, retry
from clipper_agents.status.deployment_view import DeploymentView
from clipper_agents.status.model import (
    BrokerStatus,
    ClusterStatus,
    GroupStatus,
    MemberStatus,
    TopicStatus,
    WaitingRecords,
)
from clipper_stream.client.kafka import stop
from clipper_topics import codec
from clipper_topics.catalogue import HOUR_MS, Catalogue
from clipper_topics.codec import UndecodableRecord
from clipper_topics.connection import KafkaConnection
from clipper_topics.feedback import EARLY_FEEDBACK_MS

logger = logging.getLogger(__name__)

LOOKS_APART_S = 1.0
ASK_EVERY_S, ASK_RATIO = 3.0, 4.0
"""Between two readings of a cluster by who looks on, and at least so many times what one takes."""
FIRST_BYTES = 64 << 10
"""Of a partition, to see its first record that is not finished."""
NO_OBJECTIVE_S = 60.0
"""Within which a query is answered that has no objective and no deadline."""
UNFINISHED_S = 5.0
"""A record that is not finished for so long after it should be has nobody who works at it, or too few."""


class ClusterReader:
    """Asks the brokers about a deployment. An asynchronous context manager: it connects, and closes."""

    def __init__(self, connection: KafkaConnection, catalogue: Catalogue) -> None:
        self._connection, self._catalogue = connection, catalogue
        self._admin: AIOKafkaAdminClient = make_admin(connection, STATUS.request_s)
        self._reader = LogReader(connection, policy=STATUS, fetch_bytes=FIRST_BYTES, fetch_wait_s=0.0)
        self._stack = AsyncExitStack()
        self._looked_s = 0.0
        self._committed: dict[tuple[str, TopicPartition], int] = {}

    async def __aenter__(self) -> Self:
        self._stack.push_async_callback(stop, self._admin)
        await self._admin.start()  # asks every address; when none answers, that is the answer
        self._stack.push_async_callback(self._reader.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def topics(self) -> tuple[TopicStatus, ...]:
        return _topics(await retry("topics", self._admin.describe_topics, STATUS.within_s), self._catalogue)

    async def read(self, facts: DeploymentView) -> ClusterStatus:
        """Everything; a second look at who reads what comes when the first one is a second old."""
        admin, catalogue, manifests = self._admin, self._catalogue, facts.declared.manifests
        cluster = await retry("cluster", admin.describe_cluster, STATUS.within_s)
        topics = await self.topics()
        names = {topic.name for topic in topics}
        is_first = not self._committed
        groups = await self._groups(topics, manifests)
        if is_first and any(group.waiting for group in groups):
            await asyncio.sleep(LOOKS_APART_S)
            groups = await self._groups(topics, manifests)
        return ClusterStatus(
            at_s=time.time(),
            brokers=tuple(await asyncio.gather(*(_broker(admin, broker) for broker in cluster["brokers"]))),
            topics=topics,
            missing_topics=tuple(_missing(catalogue, manifests, names)),
            groups=tuple(groups),
            dead_letters=await _dead_letters(self._reader, catalogue) if catalogue.dead_letters in names else 0,
        )

    async def _groups(self, topics: Iterable[TopicStatus], manifests: Manifests) -> list[GroupStatus]:
        """The routers' group and those of models' hosts, all asked for at once; retired versions only with members."""
        catalogue, models = self._catalogue, dict(manifests.models)
        sizes = {topic.name: topic.partitions for topic in topics if not topic.leaderless}
        reads: dict[str, tuple[str | None, list[str]]] = {
            catalogue.router_group: (None, [catalogue.feedback, catalogue.outputs, catalogue.queries])
        }
        for ref, model in models.items():
            if not model.colocated:
                requests = catalogue.requests(model.name, model.version)
                reads[catalogue.host_group(model.name, model.version)] = ref, [requests]
        inputs = {group: {topic: sizes[topic] for topic in of if topic in sizes} for group, (_, of) in reads.items()}
        partitions = {
            group: [TopicPartition(topic, number) for topic, count in found.items() for number in range(count)]
            for group, found in inputs.items()
        }
        asked = await asyncio.gather(
            *(describe_group(self._admin, *one, STATUS.within_s) for one in partitions.items())
        )
        there = await self._reader.ranges(tp for of_group in partitions.values() for tp in of_group)
        committed = {group: found for group, (_, found) in zip(reads, asked, strict=True)}
        waiting = await self._waiting(committed, partitions, there, manifests)
        return [
            GroupStatus(
                group=group,
                model=ref,
                state=one["state"],
                members=tuple(sorted(map(_member, one["members"]), key=lambda member: member.instance)),
                inputs=inputs[group],
                lag={topic: sum(lag for tp, lag in lags.items() if tp.topic == topic) for topic in inputs[group]},
                deleted=sum(max(0, there[tp].first - at) for tp, at in found.items() if at >= 0),
                waiting=tuple(waiting[group]),
            )
            for (group, (ref, _)), (one, found) in zip(reads.items(), asked, strict=True)
            for lags in [lag_of(found, {tp: there[tp] for tp in partitions[group]})]
            if one["members"] or ref is None or not models[ref].retired
        ]

    async def _waiting(
        self,
        committed: Mapping[str, Mapping[TopicPartition, int]],
        partitions: Mapping[str, Iterable[TopicPartition]],
        there: Mapping[TopicPartition, Range],
        manifests: Manifests,
    ) -> dict[str, list[WaitingRecords]]:
        """What has waited for longer than it should, by group, and whether it is being worked at."""
        now_s, looked_s, before = time.time(), self._looked_s, self._committed
        firsts = {
            (group, tp): Range(max(committed[group].get(tp, 0), there[tp].first), there[tp].end)
            for group, of_group in partitions.items()
            for tp in of_group
        }
        behind = {(group, tp): one for (group, tp), one in firsts.items() if one.first < one.end}
        heads = await self._heads({tp: one for (_, tp), one in behind.items()})
        found: dict[str, list[WaitingRecords]] = {group: [] for group in partitions}
        for (group, tp), one in behind.items():
            if (head := heads.get(tp)) is None or head.timestamp / 1000 + self._may_wait_s(head, manifests) > now_s:
                continue
            known = before.get((group, tp))
            found[group].append(
                WaitingRecords(
                    topic=tp.topic,
                    partition=tp.partition,
                    records=one.end - one.first,
                    since_s=head.timestamp / 1000,
                    stands_still=None if known is None else known >= one.first,
                )
            )
        if now_s - looked_s >= LOOKS_APART_S:
            self._looked_s = now_s
            self._committed = {place: one.first for place, one in firsts.items()}
        return found

    async def _heads(self, ranges: Mapping[TopicPartition, Range]) -> dict[TopicPartition, Record]:
        heads: dict[TopicPartition, Record] = {}
        self._reader.assign(dict(ranges))
        end_s = time.monotonic() + STATUS.request_s
        with suppress(TopicAuthorizationFailedError):  # then what waits is not known to be late
            while (asked := [tp for tp in self._reader.unread if tp not in heads]) and time.monotonic() < end_s:
                fetched = await self._reader.fetch(asked, 1, 0.1)
                heads.update((tp, records[0]) for tp, records in fetched.items() if records)
        return heads

    def _may_wait_s(self, record: Record, manifests: Manifests) -> float:
        if record.topic == self._catalogue.feedback:
            return EARLY_FEEDBACK_MS / 1000 + UNFINISHED_S
        if record.topic != self._catalogue.queries:
            return UNFINISHED_S
        try:
            query = codec.raw_queries.decode(record.value, record.headers)
        except UndecodableRecord:
            return UNFINISHED_S
        application = manifests.applications.get(query.application)
        objective_ms = None if application is None else application.objective_ms
        bounds_ms = [one for one in (query.deadline_ms, objective_ms) if one is not None]
        return UNFINISHED_S + (min(bounds_ms) / 1000 if bounds_ms else NO_OBJECTIVE_S)


def readable(topics: Iterable[TopicStatus]) -> list[TopicPartition]:
    """The partitions of topics that have a leader."""
    return [
        TopicPartition(topic.name, number)
        for topic in topics
        for number in range(topic.partitions)
        if number not in topic.leaderless
    ]


class ClusterWatch:
    """Asks again and again. What was said last stays while no broker answers.

    Attributes:
        newest: What was said last; None: nothing yet, or not since anybody looked.
        refused: Which right is missing, so that nothing is said.
        first: Set once something was said, or nobody answered.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        catalogue: Catalogue,
        facts: Callable[[], DeploymentView],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._connection, self._catalogue, self._facts, self._is_wanted = connection, catalogue, facts, is_wanted
        self.newest: ClusterStatus | None = None
        self.refused = ""
        self.first = asyncio.Event()

    async def run(self) -> None:
        """Ask until cancelled, each time for a small part of the time."""
        while True:
            try:
                async with ClusterReader(self._connection, self._catalogue) as reader:
                    while True:
                        await self._read(reader)
            except (GroupAuthorizationFailedError, TopicAuthorizationFailedError) as error:
                self.refused = (
                    f"brokers and groups may not be read by this user, so what they would say is missing: {error}"
                )
            except (KafkaError, OSError, TimeoutError):
                pass
            except Exception:
                logger.exception("the state of the brokers is not known")
            self.first.set()
            await asyncio.sleep(ASK_EVERY_S)

    async def _read(self, reader: ClusterReader) -> None:
        began_s = time.monotonic()
        if self._is_wanted():
            async with asyncio.timeout(2 * STATUS.within_s):
                self.newest = await reader.read(self._facts())
            self.refused = ""
            self.first.set()
        else:
            self.newest = None
        await asyncio.sleep(max(ASK_EVERY_S, ASK_RATIO * (time.monotonic() - began_s)))


async def readable_partitions(connection: KafkaConnection, catalogue: Catalogue) -> list[TopicPartition]:
    """The deployment's partitions that have a leader."""
    async with administration(connection) as admin:
        return readable(_topics(await admin.describe_topics(), catalogue))


async def _broker(admin: AIOKafkaAdminClient, broker: Mapping[str, Any]) -> BrokerStatus:
    try:
        async with asyncio.timeout(STATUS.request_s):
            await admin._send_request(MetadataRequest([]), broker["node_id"])  # noqa: SLF001 (its own calls ask any broker)
        reachable = True
    except (KafkaError, OSError, TimeoutError):
        reachable = False
    address = f"{broker['host']}:{broker['port']}"
    return BrokerStatus(node_id=broker["node_id"], address=address, reachable=reachable)


def _topics(described: Iterable[Mapping[str, Any]], catalogue: Catalogue) -> tuple[TopicStatus, ...]:
    found = [topic for topic in described if topic["topic"].startswith(f"{catalogue.prefix}.")]
    configured = {spec.name: spec.partitions for spec in catalogue.fixed_topics()}
    return tuple(
        TopicStatus(
            name=topic["topic"],
            partitions=len(topic["partitions"]),
            configured=configured.get(topic["topic"]),
            leaderless=tuple(sorted(one["partition"] for one in topic["partitions"] if one["leader"] < 0)),
            under_replicated=tuple(
                sorted(one["partition"] for one in topic["partitions"] if len(one["isr"]) < len(one["replicas"]))
            ),
        )
        for topic in sorted(found, key=lambda topic: str(topic["topic"]))
    )


def _missing(catalogue: Catalogue, manifests: Manifests, names: set[str]) -> list[str]:
    wanted = [spec.name for spec in catalogue.fixed_topics()]
    wanted += [catalogue.requests(one.name, one.version) for one in manifests.models.values() if wanted_hosts(one)]
    return [name for name in wanted if name not in names]


def _member(described: Mapping[str, Any]) -> MemberStatus:
    assignment = described["member_assignment"]
    decoded = ConsumerProtocolMemberAssignment.decode(assignment).assignment if assignment else ()
    return MemberStatus(
        instance=instance_of(described["member_id"]),
        host=described["client_host"].lstrip("/"),
        partitions={topic: tuple(sorted(partitions)) for topic, partitions in decoded},
    )


async def _dead_letters(reader: LogReader, catalogue: Catalogue) -> int:
    tp = TopicPartition(catalogue.dead_letters, 0)
    first = (await reader.offsets_at([tp], int(time.time() * 1000) - HOUR_MS)).get(tp)
    end = (await reader.end_offsets([tp]))[tp]
    return end - first if first is not None else 0
