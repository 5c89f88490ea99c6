"""Looks at a deployment that is followed, once a second."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from clipper_agents.kafka.errors import checked_partitions
from clipper_agents.kafka.reader import FOLLOW_WAIT_S
from clipper_agents.status.build import StatusBuilder
from clipper_agents.status.cluster import ClusterStatus, ClusterWatch, readable_partitions
from clipper_agents.status.deployment_view import DeploymentEvent, DeploymentView
from clipper_agents.status.model import ApplicationStatus, WorkerMetrics
from clipper_agents.status.problems import reasons_of
from clipper_agents.status.tailer import DeploymentTailer
from clipper_agents.status.traffic_window import TrafficWindow
from clipper_agents.status.whole import status_of, workers_of_groups
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

SILENT_S = 3.0
"""A broker answers a fetch several times a second, unless it pauses for a moment."""
SILENT = "no broker answers: figures are not known until one does"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A deployment at one moment, as a view that goes on shows it.

    Attributes:
        applications: By name.
        events: What happened since the snapshot before.
        latest: The last events, these included, the newest last.
        reasons: What is wrong, as `status` says it.
        kafka_answers: Whether a broker answered within the last `SILENT_S`.
    """

    at_s: float
    applications: dict[str, ApplicationStatus] = field(default_factory=dict)
    events: Sequence[DeploymentEvent] = ()
    latest: Sequence[DeploymentEvent] = ()
    reasons: Sequence[str] = ()
    kafka_answers: bool = True


def take_snapshot(
    facts: DeploymentView,
    recent: TrafficWindow,
    now_s: float,
    seen: int,
    application: str | None = None,
    *,
    prefix: str = "",
    cluster: ClusterStatus | None = None,
    refused: Iterable[str] = (),
    cluster_refused: str = "",
    heard_s: float = math.inf,
) -> Snapshot:
    """What there is to see now, of one application or of all.

    `seen` events were shown before; a broker answered last at `heard_s`, seconds since the epoch.
    """

    def wanted(event: DeploymentEvent) -> bool:
        return application is None or event.application in {None, application}

    answers = now_s - heard_s < SILENT_S
    workers, seen_s = workers_of_groups(cluster, WorkerMetrics()), now_s if answers else heard_s
    builder = StatusBuilder(facts=facts, recent=recent, now_s=seen_s, workers=workers)
    found = builder.applications(None if application is None else [application])
    missing = [f"application {application} is not declared: run `clipper-stream apply`, or correct the name"]
    return Snapshot(
        at_s=now_s,
        applications=found,
        events=[event for event in facts.events_since(seen) if wanted(event)],
        latest=sorted((event for event in facts.events if wanted(event)), key=attrgetter("at_s")),
        kafka_answers=answers,
        reasons=[
            *([] if answers else [SILENT]),
            *([] if application is None or found else missing),
            *reasons_of(status_of(builder, prefix, found, cluster, (), refused, cluster_refused)),
        ],
    )


async def snapshots(
    connection: KafkaConnection, catalogue: Catalogue, application: str | None, stopped: Callable[[], bool]
) -> AsyncGenerator[Snapshot, None]:
    """A snapshot at the end of each second, of one application or of all, until `stopped` says so.

    Raises:
        KafkaUnreachable: no broker answers at the start; later ones are waited for.
        TopicMismatch: there is no such deployment.
    """
    partitions = await readable_partitions(connection, catalogue)
    checked_partitions(catalogue.control, sum(tp.topic == catalogue.control for tp in partitions))
    async with DeploymentTailer(connection, catalogue, contexts=False) as following:
        await following.catch_up(partitions)
        watch = ClusterWatch(connection, catalogue, lambda: following.facts)
        watching = asyncio.ensure_future(watch.run())
        seen, due_s = following.facts.seen, time.time()
        heard_s = due_s  # it has just said what there is
        try:
            await watch.first.wait()
            while not stopped():
                if (left_s := due_s - time.time()) > 0:
                    await following.poll(min(left_s, FOLLOW_WAIT_S))
                    continue
                facts, heard_s = following.facts, max(heard_s, following.heard_s)
                yield take_snapshot(
                    facts,
                    following.recent,
                    time.time(),
                    seen,
                    application,
                    prefix=catalogue.prefix,
                    cluster=watch.newest,
                    refused=following.refused,
                    cluster_refused=watch.refused,
                    heard_s=heard_s,
                )
                seen, due_s = facts.seen, float(int(time.time()) + 1)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
