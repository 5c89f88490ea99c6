"""Sends the queries and the feedback of a range of time again, at the pace of the log or a multiple of it.

Rules of this file:
- When a record is due follows from the log alone: a slow broker delays records, and never thins the load out.
- A record that is due does not wait until earlier ones are acknowledged. Those of one partition keep their order: the
  producer is idempotent.
- A run that is stopped ends once all that it has sent is acknowledged.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from clipper_agents.kafka.clients import make_producer, started
from clipper_agents.kafka.errors import TopicMismatch, checked_partitions
from clipper_agents.kafka.reader import LogReader, Range, Record, open_reader
from clipper_agents.kafka.retry import WORKERS
from clipper_agents.kafka.time_order import TimeOrder
from clipper_agents.kafka.topics import existing_topics
from clipper_agents.replay.resent_records import LeftOut, RecordResender, ResentRecord
from clipper_agents.replay.span import Span, range_between
from clipper_stream.client.access import RIGHTS, refused_right
from clipper_topics.catalogue import LARGEST_RECORD_BYTES, Catalogue
from clipper_topics.connection import KafkaConnection

FETCH_BYTES = 1 << 20
MOST_WAITING = 1_000
"""Records of a partition that wait for those of the others, before a fetch; each fetch brings a MiB at most."""


class RerunEndpoint(NamedTuple):
    """A deployment: how to reach its brokers, and the prefix of its topics."""

    kafka: KafkaConnection
    prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunPlan:
    """What to send: records of a span from source to target, of these applications or all.

    The speed is a multiple of the logged one; 0: as fast as possible.
    """

    source: RerunEndpoint
    target: RerunEndpoint
    span: Span
    applications: tuple[str, ...]
    speed: float


@dataclass(slots=True, kw_only=True)
class RerunSummary:
    """What a run has done so far.

    Attributes:
        run: Name of the run; new ids end with it.
        read: Records of the range, those that were left out too.
        sent: Records sent, by topic.
        left_out: Records not sent, by reason.
        failed: Sent records that the brokers did not take.
        first_failure: The first of those failures.
        first_ms: Logged timestamp of the first record sent, milliseconds since the epoch; None before.
        last_ms: That of the last one.
        took_s: Seconds from the first record sent to the last.
        complete: Whether the end of the range was reached.
    """

    run: str
    read: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    left_out: Counter[LeftOut] = field(default_factory=Counter)
    failed: int = 0
    first_failure: str | None = None
    first_ms: int | None = None
    last_ms: int = 0
    took_s: float = 0.0
    complete: bool = False


async def rerun(
    plan: RerunPlan, summary: RerunSummary, stop: asyncio.Event, progress: Callable[[int], None] = lambda _: None
) -> None:
    """Send the records of a range again, until `stop` is set; the summary says what was done, also when the run breaks.

    `progress` is called after each record with the number of records in the range.

    Raises:
        KafkaUnreachable: no broker answers.
        TopicMismatch: a topic does not exist, or the target has another number of partitions.
        AccessRefused: a right is missing.
    """
    source, target = await _catalogue(plan.source), await _catalogue(plan.target)
    if source.partitions != target.partitions:
        raise TopicMismatch(
            f"topic {target.queries} has {target.partitions} partitions, {source.queries} has {source.partitions}: "
            f"create a target with `--set kafka.partitions={source.partitions}`"
        )
    producer = make_producer(plan.target.kafka, max_request_size=LARGEST_RECORD_BYTES)
    reading = open_reader(plan.source.kafka, policy=WORKERS, fetch_bytes=FETCH_BYTES)
    async with started(plan.target.kafka, producer), reading as reader:
        ranges = await ranges_of(reader, source, plan.span)
        total = sum(one.end - one.first for one in ranges.values())
        run = Rerun(RecordResender(source, target, summary.run, plan.applications), producer, summary, plan.speed)
        await run.send_all(in_time_order(reader, ranges), stop, lambda: progress(total))
    if run.refused is not None:
        raise refused_right(plan.target.kafka, run.refused) from run.refused


class Rerun:
    """Sends the copies of a log's records when they are due, at a speed as of `RerunPlan`.

    Attributes:
        refused: The error of a right that is missing, with which the run has ended.
    """

    def __init__(
        self, resender: RecordResender, producer: AIOKafkaProducer, summary: RerunSummary, speed: float
    ) -> None:
        self._resender, self._producer, self._summary, self._speed = resender, producer, summary, speed
        self._started_s = 0.0
        self._under_way: set[asyncio.Future[Any]] = set()
        self.refused: KafkaError | None = None

    async def send_all(
        self,
        log: AsyncGenerator[tuple[int, Record], None],
        stop: asyncio.Event,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Send records, each given with its time in milliseconds, and wait until the brokers have acknowledged them."""
        summary = self._summary
        async with aclosing(log):
            async for at_ms, record in log:
                copy = self._resender.copy(record)
                if not isinstance(copy, str):
                    await self._wait_until_due(at_ms, stop)
                if stop.is_set() or self.refused is not None:
                    break
                if isinstance(copy, str):
                    summary.left_out[copy] += 1
                else:
                    await self._send(at_ms, copy)
                summary.read += 1
                progress()
            else:
                summary.complete = True
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _wait_until_due(self, at_ms: int, stop: asyncio.Event) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._summary.first_ms is None:
            self._summary.first_ms, self._started_s = at_ms, now_s
        due_s = self._started_s + (at_ms - self._summary.first_ms) / 1000 / (self._speed or float("inf"))
        if due_s > now_s:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due_s):
                    await stop.wait()

    async def _send(self, at_ms: int, copy: ResentRecord) -> None:
        summary = self._summary
        try:
            future = await self._producer.send(copy.topic, copy.value, copy.key, copy.partition, headers=copy.headers)
        except KafkaError as error:
            self._note_failure(error)
        else:
            self._under_way.add(future)
            future.add_done_callback(self._acknowledged)
        summary.sent[copy.topic] += 1
        summary.last_ms = max(summary.last_ms, at_ms)
        summary.took_s = asyncio.get_running_loop().time() - self._started_s

    def _acknowledged(self, future: "asyncio.Future[Any]") -> None:
        self._under_way.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:
            self._note_failure(error)

    def _note_failure(self, error: BaseException) -> None:
        self._summary.failed += 1
        self._summary.first_failure = self._summary.first_failure or repr(error)
        if isinstance(error, RIGHTS):
            self.refused = error


async def ranges_of(reader: LogReader, topics: Catalogue, span: Span) -> dict[TopicPartition, Range]:
    """Return the offsets of queries and feedback in a span, of the partitions that have some."""
    names = topics.queries, topics.feedback
    there = await reader.ranges(TopicPartition(name, number) for name in names for number in range(topics.partitions))
    found = {tp: await range_between(reader, tp, span.since_ms, span.until_ms, one) for tp, one in there.items()}
    return {tp: one for tp, one in found.items() if one.first < one.end}


async def in_time_order(
    reader: LogReader, ranges: Mapping[TopicPartition, Range]
) -> AsyncGenerator[tuple[int, Record], None]:
    """Yield the records of the ranges as one log, each with its time in milliseconds, in bounded memory.

    Of records of one millisecond those of the partition that comes first in the ranges are first.
    """
    order = TimeOrder({tp: rank for rank, tp in enumerate(ranges)})
    reader.assign(ranges)
    while unread := reader.unread:
        wanted = [tp for tp in unread if order.waiting(tp) < MOST_WAITING]
        for tp, records in (await reader.fetch(wanted)).items():
            order.add(tp, records)
        for found in order.release(ranges.keys() - unread, float("inf")):
            yield found


async def _catalogue(place: RerunEndpoint) -> Catalogue:
    found, topics = Catalogue(prefix=place.prefix), await existing_topics(place.kafka, place.prefix)
    partitions = checked_partitions(found.queries, topics.get(found.queries))
    checked_partitions(found.feedback, topics.get(found.feedback), partitions)
    return replace(found, partitions=partitions)
