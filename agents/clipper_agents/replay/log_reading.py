"""The logs of one application in Kafka, read into tables by several processes.

Rules of this file:
- The processes import no more than they need: neither DuckDB nor an estimator.
"""

import asyncio
import gc
import math
import os
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import TypeAlias

from aiokafka import TopicPartition

from clipper_agents.control.state import ControlState, read_control
from clipper_agents.kafka.reader import LogReader, Range, Record, open_reader
from clipper_agents.replay.log_tables import LogTables
from clipper_agents.replay.span import PartitionSpan, Span, partition_spans
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
    """The logs of one application in Kafka, of which a span is read, and with `inputs` the queries' inputs too.

    The loss is `zero_one`, `absolute` or `squared`; manifests are those of the application by revision, as far as its
    changes tell.
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


def read_tables(
    log: KafkaLog, spans: Sequence[PartitionSpan], folder: Path, processes: int, progress: Progress = lambda _: None
) -> Counter[str]:
    """Read the spans into tables in a folder, a partition a job; arguments and errors as of `export_log`.

    Processes are spawned, so that no thread or lock of a library is copied into them, and end with this one.
    """
    largest_first, counts = sorted(spans, key=lambda one: -one.records), Counter[str]()
    before, pool = {*active_children()}, ProcessPoolExecutor(processes, get_context("spawn"), _begin)
    try:
        for span, found in zip(largest_first, pool.map(partial(_read, log, folder), largest_first), strict=True):
            counts += found
            progress(span.records)
    except BrokenProcessPool as error:
        raise ReadingBroken("a process that was reading the logs has ended: run the command again") from error
    except BaseException:
        for child in {*active_children()} - before:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return counts


def _read(log: KafkaLog, folder: Path, span: PartitionSpan) -> Counter[str]:
    gc.disable()  # records refer to nothing that refers back
    try:
        return asyncio.run(_read_tables(log, folder, span))
    finally:
        gc.enable()


async def _read_tables(log: KafkaLog, folder: Path, span: PartitionSpan) -> Counter[str]:
    topics, number = log.catalogue, span.partition
    ranges = {
        TopicPartition(topics.predictions, number): span.predictions,
        TopicPartition(topics.audits, number): span.audits,
        TopicPartition(topics.feedback, number): span.feedback,
    }
    async with open_reader(log.kafka, fetch_wait_s=FETCH_WAIT_S) as reader:
        with LogTables(folder, str(number), topics, log.application, {number: span.first}) as tables:
            async for records in _lists(reader, ranges):
                tables.take(records)
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


def _begin() -> None:
    """Leave Ctrl-C to the parent process, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _within(there: Range, first: int, last: int) -> Range:
    return Range(max(there.first, first), min(there.end, last + 1))
