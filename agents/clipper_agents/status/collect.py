"""Reads the status of a deployment from Kafka alone.

Rules of this file:
- Requests time out quickly and are asked again, of another broker: one that is frozen must not hide the others.
- The cluster is asked as it is; nothing is created, joined or committed.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from clipper_agents.control.plan import wanted_hosts
from clipper_agents.control.state import Manifests
from clipper_agents.kafka.clients import administration, make_admin, stop, unreachable
from clipper_agents.kafka.consumer_groups import describe_group, instance_of, lag_of
from clipper_agents.kafka.reader import LogReader
from clipper_agents.kafka.retry import STATUS, retry
from clipper_agents.kafka.topic_ids import read_topic_ids
from clipper_agents.kafka.topic_renewal import replaced_logs
from clipper_agents.rollout.read_comparisons import read_comparisons
from clipper_agents.status.build import StatusBuilder
from clipper_agents.status.deployment_view import DeploymentView
from clipper_agents.status.model import (
    BrokerStatus,
    GroupStatus,
    MemberStatus,
    ModelStatus,
    Status,
    TopicStatus,
    WorkerMetrics,
)
from clipper_agents.status.processes import read_metrics
from clipper_agents.status.tailer import DeploymentTailer
from clipper_agents.status.traffic_window import LONGEST_S
from clipper_topics.catalogue import HOUR_MS, Catalogue
from clipper_topics.comparison import Comparison
from clipper_topics.connection import KafkaConnection

COMPARE_S = 15.0
"""For the logs since the oldest trial; if that is too short, trials are compared by the totals of the table."""


async def read_status(
    connection: KafkaConnection, catalogue: Catalogue, context: str | None = None, metrics: Iterable[str] = ()
) -> Status:
    """The deployment now, with weights and losses of a context, or of queries without one.

    `metrics` are addresses, `host:port`, of workers' metrics, besides those that hosts report; one that does not answer
    is left out.

    Raises:
        KafkaUnreachable: no broker answers.
    """
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(2 * STATUS.within_s):
                return await _read(connection, catalogue, context, metrics, stack)
        except (KafkaError, OSError, TimeoutError) as error:
            raise await unreachable(connection, error) from error


async def _read(
    connection: KafkaConnection,
    catalogue: Catalogue,
    context: str | None,
    metrics: Iterable[str],
    stack: AsyncExitStack,
) -> Status:
    admin = make_admin(connection, STATUS.request_s)
    stack.push_async_callback(stop, admin)
    await admin.start()  # asks every address; when none answers, that is the answer
    reader = LogReader(connection, isolation_level="read_committed", policy=STATUS)
    stack.push_async_callback(reader.close)

    cluster = await retry("cluster", admin.describe_cluster, STATUS.within_s)
    topics = _topics(await retry("topics", admin.describe_topics, STATUS.within_s), catalogue)
    names = {topic.name for topic in topics}
    following = await stack.enter_async_context(DeploymentTailer(connection, catalogue, context=context))
    unread = await following.catch_up(_readable(topics))
    manifests = following.facts.declared.manifests
    groups = await _groups(admin, reader, catalogue, topics, manifests)
    logs = [name for name in catalogue.logs if name in names]
    ids = await retry("ids of topics", partial(read_topic_ids, admin._client, logs), STATUS.within_s)  # noqa: SLF001 (what has it)
    replaced = replaced_logs(catalogue, following.facts.topic_ids.values(), ids)
    comparisons = await _compared(connection, catalogue, following.facts)
    served = await read_metrics([*metrics, *following.facts.metrics_addresses])
    at_s = time.time()
    builder = StatusBuilder(
        facts=following.facts,
        recent=following.recent,
        now_s=at_s,
        window_s=LONGEST_S,
        context=context,
        comparisons=comparisons,
        workers=_workers(groups, served),
    )
    return Status(
        prefix=catalogue.prefix,
        at_s=at_s,
        brokers=tuple(await asyncio.gather(*(_broker(admin, broker) for broker in cluster["brokers"]))),
        controller=cluster["controller_id"] >= 0,
        silent_addresses=tuple(await _silent(connection)),
        topics=topics,
        missing_topics=tuple(_missing(catalogue, manifests, names)),
        replaced_topics=tuple(name for name in replaced if name in names),
        groups=tuple(groups),
        applications=builder.applications(),
        models=tuple(_models(manifests, groups)),
        unreadable={key: refused.advice for key, refused in manifests.unreadable.items()},
        dead_letters=await _dead_letters(reader, catalogue) if catalogue.dead_letters in names else 0,
        unread_topics=tuple(unread),
        refused_topics=tuple(sorted(following.refused)),
    )


async def _compared(connection: KafkaConnection, catalogue: Catalogue, facts: DeploymentView) -> Sequence[Comparison]:
    """What the logs say of trials, where the steward wrote nothing about one of them lately.

    Nothing where there are none, where the logs are too long, or may not be read.
    """
    declared, now_s = facts.declared.manifests.applications.values(), time.time()
    trials = [(each.name, trial.model) for each in declared for trial in each.trials]
    if all(facts.fresh_comparison(one, now_s) is not None for one in trials):
        return ()
    try:
        async with asyncio.timeout(COMPARE_S):
            found = await read_comparisons(connection, catalogue, facts.declared)
            return [one for one in found if one.feedbacks]
    except (TimeoutError, KafkaError):
        return ()


def _readable(topics: Iterable[TopicStatus]) -> list[TopicPartition]:
    return [
        TopicPartition(topic.name, number)
        for topic in topics
        for number in range(topic.partitions)
        if number not in topic.leaderless
    ]


async def readable_partitions(connection: KafkaConnection, catalogue: Catalogue) -> list[TopicPartition]:
    """The deployment's partitions that have a leader.

    Raises:
        KafkaUnreachable: no broker answers.
    """
    async with administration(connection) as admin:
        return _readable(_topics(await admin.describe_topics(), catalogue))


def _workers(groups: Iterable[GroupStatus], served: WorkerMetrics) -> WorkerMetrics:
    """What the workers serve, with what their groups say."""
    of_hosts = {group.model: group for group in groups if group.model is not None}
    return replace(
        served,
        members={ref: len(group.members) for ref, group in of_hosts.items()},
        lag={ref: sum(group.lag.values()) for ref, group in of_hosts.items()},
    )


async def _broker(admin: AIOKafkaAdminClient, broker: Mapping[str, Any]) -> BrokerStatus:
    try:
        await asyncio.wait_for(admin._send_request(MetadataRequest([]), broker["node_id"]), STATUS.request_s)  # noqa: SLF001 (aiokafka asks any broker, never a certain one)
        reachable = True
    except (KafkaError, OSError, TimeoutError):
        reachable = False
    address = f"{broker['host']}:{broker['port']}"
    return BrokerStatus(node_id=broker["node_id"], address=address, reachable=reachable)


async def _silent(connection: KafkaConnection) -> list[str]:
    """Addresses of the connection at which nobody takes a connection."""
    addresses = [address.strip() for address in connection.bootstrap.split(",")]
    taken = await asyncio.gather(*map(_takes_connections, addresses))
    return [address for address, takes in zip(addresses, taken, strict=True) if not takes]


async def _takes_connections(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host.strip("[]"), int(port)), STATUS.request_s)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


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


async def _groups(
    admin: AIOKafkaAdminClient,
    reader: LogReader,
    catalogue: Catalogue,
    topics: Iterable[TopicStatus],
    manifests: Manifests,
) -> list[GroupStatus]:
    """The routers' group and those of models' hosts, all asked for at once; retired versions only with members."""
    sizes = {topic.name: topic.partitions for topic in topics if not topic.leaderless}
    reads: dict[str, tuple[str | None, list[str]]] = {
        catalogue.router_group: (None, [catalogue.feedback, catalogue.outputs, catalogue.queries])
    }
    for ref, model in manifests.models.items():
        if not model.colocated:
            requests = catalogue.requests(model.name, model.version)
            reads[catalogue.host_group(model.name, model.version)] = ref, [requests]
    inputs = {group: {topic: sizes[topic] for topic in names if topic in sizes} for group, (_, names) in reads.items()}
    partitions = {
        group: [TopicPartition(topic, number) for topic, count in found.items() for number in range(count)]
        for group, found in inputs.items()
    }
    asked = await asyncio.gather(*(describe_group(admin, *one, STATUS.within_s) for one in partitions.items()))
    there = await reader.ranges(tp for of_group in partitions.values() for tp in of_group)
    return [
        GroupStatus(
            group=group,
            model=ref,
            state=one["state"],
            members=tuple(sorted(map(_member, one["members"]), key=lambda member: member.instance)),
            inputs=inputs[group],
            lag={topic: sum(lag for tp, lag in lags.items() if tp.topic == topic) for topic in inputs[group]},
        )
        for (group, (ref, _)), (one, committed) in zip(reads.items(), asked, strict=True)
        for lags in [lag_of(committed, {tp: there[tp] for tp in partitions[group]})]
        if one["members"] or ref is None or not manifests.models[ref].retired
    ]


def _member(described: Mapping[str, Any]) -> MemberStatus:
    assignment = described["member_assignment"]
    decoded = ConsumerProtocolMemberAssignment.decode(assignment).assignment if assignment else ()
    return MemberStatus(
        instance=instance_of(described["member_id"]),
        host=described["client_host"].lstrip("/"),
        partitions={topic: tuple(sorted(partitions)) for topic, partitions in decoded},
    )


def _models(manifests: Manifests, groups: Iterable[GroupStatus]) -> Iterable[ModelStatus]:
    members = {group.model: len(group.members) for group in groups}
    for ref, model in sorted(manifests.models.items()):
        yield ModelStatus(
            ref=ref,
            colocated=model.colocated,
            replicas=wanted_hosts(model),
            live=members.get(None if model.colocated and not model.retired else ref, 0),
            retired=model.retired,
        )


async def _dead_letters(reader: LogReader, catalogue: Catalogue) -> int:
    """How many came within the last hour."""
    tp = TopicPartition(catalogue.dead_letters, 0)
    first = (await reader.offsets_at([tp], int(time.time() * 1000) - HOUR_MS)).get(tp)
    end = (await reader.end_offsets([tp]))[tp]
    return end - first if first is not None else 0
