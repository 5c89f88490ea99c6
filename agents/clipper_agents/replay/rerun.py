"""One whole run of `replay produce`: find the ranges, check the target, read, and send."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Protocol

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from clipper_agents.kafka.clients import administration, make_producer, unreachable
from clipper_agents.kafka.errors import checked_partitions
from clipper_agents.kafka.reader import LogReader, Range
from clipper_agents.kafka.topics import existing_topics
from clipper_agents.replay.merged_log import MergedLog, TimeRange, log_reader, ranges_of, within_log
from clipper_agents.replay.resend import Rerun, RerunSummary, ResendProgress, RunTimer, only_counted, sender
from clipper_agents.replay.resent_records import RecordResender
from clipper_agents.replay.run_ids import Ids
from clipper_stream.client.access import refused_right
from clipper_stream.errors import InvalidSetting
from clipper_topics.catalogue import LARGEST_RECORD_BYTES, Catalogue
from clipper_topics.connection import KafkaConnection

Kind = Literal["queries", "feedback"]


class RerunProgress(ResendProgress, Protocol):
    """Progress of a run that also knows the length of the range."""

    def begin(self, offsets: int) -> None:
        """Start with this number of offsets to read."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunEndpoint:
    """A deployment.

    Attributes:
        kafka: How to reach its brokers.
        prefix: Of its topics.
    """

    kafka: KafkaConnection
    prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunPlan:
    """Which records to send, from where to where, and how fast.

    Attributes:
        source: Deployment with the logged records.
        target: Deployment to send them to.
        kinds: Kinds of records to send.
        wanted: A range of time, or of offsets by kind and partition.
        applications: Applications to send; empty: all.
        ids: Makes the id of each query.
        speed: Multiple of the logged speed; None: as fast as possible.
        dry: Send nothing, and count what would be sent.
    """

    source: RerunEndpoint
    target: RerunEndpoint
    kinds: tuple[Kind, ...]
    wanted: TimeRange | Mapping[tuple[Kind, int], Range]
    applications: tuple[str, ...]
    ids: Ids
    speed: float | None
    dry: bool


async def same_deployment(one: RerunEndpoint, other: RerunEndpoint) -> bool:
    """Return whether two endpoints are one deployment, possibly under two addresses.

    Raises:
        KafkaUnreachable: no broker answers.
    """
    if one.prefix != other.prefix:
        return False
    return one.kafka.bootstrap == other.kafka.bootstrap or await _cluster(one) == await _cluster(other)


async def rerun(
    plan: RerunPlan, stop: asyncio.Event, summary: RerunSummary, progress: RerunProgress | None = None
) -> None:
    """Send the records of a range again.

    Args:
        plan: What to send, and how.
        stop: Ends the run when it is set.
        summary: Says what was sent, also when the run breaks.
        progress: Called with the length of the range, then after each record.

    Raises:
        KafkaUnreachable: no broker answers.
        TopicMismatch: a topic does not exist.
        AccessRefused: a right is missing.
        InvalidSetting: a partition is named that the source does not have.
    """
    source, target = await _catalogue(plan.source), await _catalogue(plan.target)
    _check_partitions(plan, source)
    async with log_reader(plan.source.kafka) as reader:
        summary.unread = await _ranges(reader, plan, source)
        log = MergedLog(reader, summary.unread)
        if progress is not None:
            progress.begin(log.offsets)
        resending = RecordResender(
            source,
            target,
            plan.ids,
            applications=plan.applications,
            queries="queries" in plan.kinds,
            feedback="feedback" in plan.kinds,
        )
        make_run = partial(Rerun, resending, timer=RunTimer(stop), progress=progress, summary=summary)
        if plan.dry:
            await make_run(only_counted, speed=None).run(log.records())
        else:
            await _send(plan, make_run, log)


async def _send(plan: RerunPlan, make_run: Callable[..., Rerun], log: MergedLog) -> None:
    producer = make_producer(plan.target.kafka, max_request_size=LARGEST_RECORD_BYTES)
    try:
        await producer.start()
    except KafkaError as error:
        await producer.stop()
        raise await unreachable(plan.target.kafka, error) from error
    try:
        summary = await make_run(sender(producer), speed=plan.speed).run(log.records())
    finally:
        await producer.stop()
    if summary.refused is not None:
        raise refused_right(plan.target.kafka, summary.refused) from summary.refused


async def _ranges(reader: LogReader, plan: RerunPlan, source: Catalogue) -> dict[TopicPartition, Range]:
    names = {"queries": source.queries, "feedback": source.feedback}
    if isinstance(plan.wanted, TimeRange):
        every = [TopicPartition(names[kind], number) for kind in plan.kinds for number in range(source.partitions)]
        return await ranges_of(reader, every, plan.wanted)
    chosen = {(kind, at): one for (kind, at), one in plan.wanted.items() if kind in plan.kinds}
    return await within_log(reader, {TopicPartition(names[kind], at): one for (kind, at), one in chosen.items()})


def _check_partitions(plan: RerunPlan, source: Catalogue) -> None:
    named = () if isinstance(plan.wanted, TimeRange) else plan.wanted
    beyond = [f"{kind}/{at}" for kind, at in named if at >= source.partitions]
    if beyond:
        raise InvalidSetting(f"there is no {', '.join(beyond)}: partitions are 0 to {source.partitions - 1}")


async def _catalogue(place: RerunEndpoint) -> Catalogue:
    """Return the topics of a deployment with their actual number of partitions."""
    found = Catalogue(prefix=place.prefix)
    topics = await existing_topics(place.kafka, place.prefix)
    for name in (found.queries, found.feedback):
        checked_partitions(name, topics.get(name))
    return replace(found, partitions=topics[found.queries])


async def _cluster(place: RerunEndpoint) -> str | None:
    async with administration(place.kafka) as admin:
        found: str | None = (await admin.describe_cluster()).get("cluster_id")
    return found
