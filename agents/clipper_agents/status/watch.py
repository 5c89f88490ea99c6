"""Looks at a deployment that is followed, once a second."""

import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from clipper_agents.kafka.errors import checked_partitions
from clipper_agents.kafka.tailer import POLL_S
from clipper_agents.status.build import StatusBuilder
from clipper_agents.status.collect import readable_partitions
from clipper_agents.status.deployment_view import DeploymentEvent, DeploymentView
from clipper_agents.status.model import ApplicationStatus
from clipper_agents.status.problems import application_reasons, refused_reason
from clipper_agents.status.tailer import DeploymentTailer
from clipper_agents.status.traffic_window import TrafficWindow
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

WINDOW_S = 10
"""Seconds of the figures: long enough for a p99, short enough to see a change."""
SILENT_S = 3.0
"""A broker answers a fetch several times a second, unless it pauses for a moment."""
SILENT = "no broker answers: figures are not known until one does"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A deployment at one moment, as a view that goes on shows it.

    Attributes:
        applications: By name; the figures of what flowed are of the last `WINDOW_S` seconds.
        events: What happened since the snapshot before.
        latest: The last events, these included, the newest last.
        reasons: What is wrong with applications and versions.
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
    refused: Iterable[str] = (),
    heard_s: float = math.inf,
) -> Snapshot:
    """What there is to see now, of one application or of all.

    `seen` events were shown before; a broker answered last at `heard_s`, seconds since the epoch.
    """

    def wanted(event: DeploymentEvent) -> bool:
        return application is None or event.application in {None, application}

    found = StatusBuilder(facts=facts, recent=recent, now_s=now_s, window_s=WINDOW_S).applications(
        None if application is None else [application]
    )
    answers = now_s - heard_s < SILENT_S
    missing = [f"application {application} is not declared: run `clipper-stream apply`, or correct the name"]
    return Snapshot(
        at_s=now_s,
        applications=found,
        events=[event for event in facts.events_since(seen) if wanted(event)],
        latest=sorted((event for event in facts.events if wanted(event)), key=attrgetter("at_s")),
        kafka_answers=answers,
        reasons=[
            *([] if answers else [SILENT]),
            *map(refused_reason, sorted(refused)),
            *([] if application is None or found else missing),
            *application_reasons(found, now_s),
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
        seen, due_s = following.facts.seen, time.time()
        heard_s = due_s  # it has just said what there is
        while not stopped():
            if (left_s := due_s - time.time()) > 0:
                await following.poll(min(left_s, POLL_S))
                continue
            facts, recent, heard_s = following.facts, following.recent, max(heard_s, following.heard_s)
            yield take_snapshot(facts, recent, time.time(), seen, application, following.refused, heard_s)
            seen, due_s = following.facts.seen, float(int(time.time()) + 1)
