"""The status of a deployment, from Kafka alone: what its records say, and what its brokers do; once, or each second."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

from aiokafka.errors import KafkaError

from clipper_agents.kafka.clients import unreachable
from clipper_agents.kafka.errors import checked_partitions
from clipper_agents.kafka.reader import FOLLOW_WAIT_S
from clipper_agents.kafka.retry import STATUS
from clipper_agents.status.build import StatusBuilder
from clipper_agents.status.cluster import ClusterReader, ClusterWatch, readable, readable_partitions
from clipper_agents.status.model import ClusterStatus, Status
from clipper_agents.status.processes import MetricsWatch, ServedMetrics, read_metrics
from clipper_agents.status.tailer import DeploymentTailer
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

SILENT_S = 3.0
"""A broker answers a fetch several times a second, unless it pauses for a moment."""
SILENT = "no broker answers"


async def read_status(connection: KafkaConnection, catalogue: Catalogue) -> Status:
    """The deployment now."""
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(2 * STATUS.within_s):
                cluster_reader = await stack.enter_async_context(ClusterReader(connection, catalogue))
                tailer = await stack.enter_async_context(DeploymentTailer(connection, catalogue))
                unread = await tailer.catch_up(readable(await cluster_reader.topics()))
                cluster = await cluster_reader.read(tailer.facts)
        except (KafkaError, OSError, TimeoutError) as error:
            raise await unreachable(connection, error) from error
    metrics = await read_metrics(tailer.facts.metrics_addresses)
    found = _status(tailer, catalogue, time.time(), cluster, metrics)
    return replace(found, unread_topics=tuple(unread))


async def follow_status(
    connection: KafkaConnection, catalogue: Catalogue, stopped: Callable[[], bool]
) -> AsyncGenerator[Status, None]:
    """The deployment at the end of each second, until `stopped` says so."""
    partitions = await readable_partitions(connection, catalogue)
    checked_partitions(catalogue.control, sum(tp.topic == catalogue.control for tp in partitions))
    async with DeploymentTailer(connection, catalogue) as tailer:
        unread = await tailer.catch_up(partitions)
        watch, metrics = ClusterWatch(connection, catalogue, lambda: tailer.facts), MetricsWatch(lambda: tailer.facts)
        watching = asyncio.gather(watch.run(), metrics.run())
        due_s = heard_s = time.time()  # a broker has just said what there is
        try:
            await watch.first.wait()
            while not stopped():
                if (left_s := due_s - time.time()) > 0:
                    await tailer.poll(min(left_s, FOLLOW_WAIT_S))
                    continue
                now_s, heard_s = time.time(), max(heard_s, tailer.heard_s)
                is_silent = now_s - heard_s > SILENT_S
                found = _status(tailer, catalogue, heard_s if is_silent else now_s, watch.newest, metrics.newest)
                stale = SILENT if is_silent else ""
                yield replace(found, stale=stale, unread_topics=tuple(unread), cluster_refused=watch.refused)
                due_s = math.floor(time.time()) + 1.0
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def _status(
    tailer: DeploymentTailer,
    catalogue: Catalogue,
    now_s: float,
    cluster: ClusterStatus | None,
    metrics: ServedMetrics,
) -> Status:
    made = StatusBuilder(facts=tailer.facts, recent=tailer.recent, now_s=now_s, cluster=cluster, metrics=metrics)
    return replace(made.status(catalogue.prefix), refused_topics=tuple(sorted(tailer.refused)))
