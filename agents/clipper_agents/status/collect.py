"""The status of a deployment, from Kafka alone: what its records say, and what its brokers do."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack

from aiokafka.errors import KafkaError

from clipper_agents.kafka.clients import unreachable
from clipper_agents.kafka.retry import STATUS
from clipper_agents.rollout.read_comparisons import read_comparisons
from clipper_agents.status.build import StatusBuilder
from clipper_agents.status.cluster import ClusterReader, readable
from clipper_agents.status.deployment_view import DeploymentView
from clipper_agents.status.model import Status
from clipper_agents.status.processes import read_metrics
from clipper_agents.status.tailer import DeploymentTailer
from clipper_agents.status.whole import status_of, workers_of_groups
from clipper_topics.catalogue import Catalogue
from clipper_topics.comparison import Comparison
from clipper_topics.connection import KafkaConnection

COMPARE_S = 15.0
"""For the logs since the oldest trial; if that is too short, trials are compared by the totals of the table."""


async def read_status(
    connection: KafkaConnection, catalogue: Catalogue, context: str | None = None, metrics: Iterable[str] = ()
) -> Status:
    """The deployment now, with weights and losses of a context, or of queries without one.

    `metrics` are addresses, `host:port`, of workers' metrics, besides those that processes report; one that does not
    answer is left out.

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
    cluster_reader = await stack.enter_async_context(ClusterReader(connection, catalogue))
    following = await stack.enter_async_context(DeploymentTailer(connection, catalogue, context=context))
    unread = await following.catch_up(readable(await cluster_reader.topics()))
    cluster = await cluster_reader.read(following.facts)
    comparisons = await _compared(connection, catalogue, following.facts)
    served = await read_metrics([*metrics, *following.facts.metrics_addresses])
    builder = StatusBuilder(
        facts=following.facts,
        recent=following.recent,
        now_s=time.time(),
        context=context,
        comparisons=comparisons,
        workers=workers_of_groups(cluster, served),
    )
    return status_of(builder, catalogue.prefix, builder.applications(), cluster, unread, following.refused)


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
