"""The logs of one application in Kafka, read into tables by several processes.

Rules of this file:
- The processes import no more than they need: neither DuckDB nor an estimator.
"""

import asyncio
import gc
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

from aiokafka import TopicPartition

from clipper_agents.control.state import ControlState, read_control
from clipper_agents.kafka.reader import LogReader, Range, Record, open_reader
from clipper_agents.replay.log_tables import LogTables
from clipper_agents.replay.span import PartitionSpan, Span, partition_spans
from clipper_agents.replay.worker_pool import advance, run_jobs
from clipper_stream.errors import ClipperError, SetupError
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ApplicationManifest

AT_ONCE = 8_192
"""Most records that are decoded together."""
FETCH_WAIT_S = 0.1
"""Of a long reading: a topic that has come to its end is asked about a few times a second, and no more."""
_ALL = Span()

Progress: TypeAlias = Callable[[int], None]
"""Called with the number of records read since the last call."""


class NoSuchApplication(SetupError):
    """No application of this name was ever registered, so its loss is unknown."""


class ReadingBroken(ClipperError):
    """A reading process ended early, so the reading is incomplete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaLog:
    """The logs of one application in Kafka.

    Attributes:
        kafka: How to reach the brokers.
        catalogue: Topics of the deployment.
        application: Name of the application.
        loss_kind: How a label is compared with an output: `zero_one`, `absolute` or `squared`.
        span: The part to read.
        inputs: Whether to read the queries' inputs too.
        manifests: Of the application, by revision, as far as its changes tell.
    """

    kafka: KafkaConnection
    catalogue: Catalogue
    application: str
    loss_kind: str
    span: Span = _ALL
    inputs: bool = False
    manifests: Mapping[int, ApplicationManifest] = field(default_factory=dict)


async def log_of(
    kafka: KafkaConnection, catalogue: Catalogue, application: str, span: Span, *, inputs: bool = False
) -> KafkaLog:
    """Return the logs of an application with the loss at the end of the span; arguments as of `KafkaLog`.

    Raises:
        NoSuchApplication: the application was never registered.
        KafkaUnreachable: no broker answers.
        TopicMismatch: there is no control topic.
    """
    control = await read_control(kafka, catalogue)
    manifests, loss = manifests_until(control, application, span.until_ms)
    return KafkaLog(
        kafka=kafka,
        catalogue=catalogue,
        application=application,
        loss_kind=loss,
        span=span,
        inputs=inputs,
        manifests=manifests,
    )


def manifests_until(
    control: ControlState, application: str, until_ms: int | None
) -> tuple[dict[int, ApplicationManifest], str]:
    """Return the manifests of an application by revision, and its loss at a time (None: now); errors as of `log_of`."""
    manifests = {one.revision: one for one in control.past_manifests(application) if one is not None}
    if not manifests:
        known = ", ".join(sorted(control.manifests.applications)) or "none"
        raise NoSuchApplication(f"no application {application!r} on the control topic: there are {known}")
    end_ms = math.inf if until_ms is None else until_ms
    later = {revision for revision, change in control.history(application).items() if change.at_ms >= end_ms}
    last = max(manifests.keys() - later, default=min(manifests))
    return manifests, manifests[last].scaled_loss


async def spans_of(log: KafkaLog) -> list[PartitionSpan]:
    """Return the current offsets of each partition of the span."""
    async with open_reader(log.kafka) as reader:
        return await partition_spans(reader, log.catalogue, log.span)


class _Share(NamedTuple):
    """Partitions that one process reads, with the number that names its tables."""

    log: KafkaLog
    spans: Sequence[PartitionSpan]
    folder: Path
    number: int


def read_tables(
    log: KafkaLog, spans: Sequence[PartitionSpan], folder: Path, processes: int, progress: Progress = lambda _: None
) -> Counter[str]:
    """Read the spans into tables in a folder, and count the records; arguments and errors as of `export_log`."""
    shares = [_Share(log, own, folder, number) for number, own in enumerate(shared_out(spans, processes))]
    try:
        return sum(run_jobs(_read, shares, processes, progress), Counter())
    except BrokenProcessPool as error:
        raise ReadingBroken("a process that was reading the logs has ended: run the command again") from error


def shared_out(spans: Sequence[PartitionSpan], processes: int) -> list[list[PartitionSpan]]:
    """Divide the partitions among at most as many processes, about as many records each."""
    shares: list[list[PartitionSpan]] = [[] for _ in range(max(1, min(processes, len(spans))))]
    for span in sorted(spans, key=lambda one: -one.records):
        min(shares, key=lambda share: sum(one.records for one in share)).append(span)
    return shares


def _read(share: _Share) -> Counter[str]:
    gc.disable()  # records refer to nothing that refers back
    try:
        return asyncio.run(_read_tables(share))
    finally:
        gc.enable()


async def _read_tables(share: _Share) -> Counter[str]:
    log, topics = share.log, share.log.catalogue
    ranges = {
        TopicPartition(topic, span.partition): offsets
        for span in share.spans
        for topic, offsets in (
            (topics.predictions, span.predictions),
            (topics.audits, span.audits),
            (topics.feedback, span.feedback),
        )
    }
    firsts = {span.partition: span.first for span in share.spans}
    async with open_reader(log.kafka, fetch_wait_s=FETCH_WAIT_S) as reader:
        with LogTables(share.folder, str(share.number), topics, log.application, firsts) as tables:
            async for records in _lists(reader, ranges):
                tables.take(records)
                advance(len(records))
            if log.inputs:
                there = await reader.ranges(TopicPartition(topics.queries, partition) for partition in tables.asked)
                queries = {tp: _within(one, *tables.asked[tp.partition]) for tp, one in there.items()}
                async for records in _lists(reader, queries):
                    tables.take(records)
            return tables.counts


async def _lists(reader: LogReader, ranges: Mapping[TopicPartition, Range]) -> AsyncIterator[list[Record]]:
    async with aclosing(reader.lists(ranges, AT_ONCE)) as lists:
        async for _, records in lists:
            yield records


def _within(there: Range, first: int, last: int) -> Range:
    return Range(max(there.first, first), min(there.end, last + 1))
