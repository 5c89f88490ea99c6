"""The decisions of one application, from the logs in Kafka into a Parquet file.

logs in Kafka --> [LogTables] tables of each process in a temporary folder --> [DecisionJoin] --> file
"""

import asyncio
import gc
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

from aiokafka import TopicPartition

from clipper_agents.control.state import read_manifests
from clipper_agents.kafka.reader import LogReader, Range, Record, open_reader
from clipper_agents.replay.decision_join import DecisionJoin, JoinRules
from clipper_agents.replay.log_tables import LogTables
from clipper_agents.replay.span import PartitionSpan, Span, partition_spans
from clipper_agents.replay.worker_pool import advance, run_jobs
from clipper_stream.errors import ClipperError, SetupError
from clipper_stream.evaluation.log.parquet import FileFacts, new_file
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

COUNTS = {
    "decisions": "decisions of the application in the span",
    "with_feedback": "decisions with a feedback that counts",
    "feedback": "feedback records that could be read, about whatever",
    "repeated": "predictions about a query that one was read about before",
    "duplicates": "feedback about a decision after the one that counts",
    "invalid": "feedback about a decision that cannot be compared with it, or names another context or application",
    "late": "feedback behind the horizon of its decision",
    "orphans": "feedback about a query of which no prediction was read",
    "not_wanted": "feedback about a decision of another application, or before the span",
    "forwarded": "feedback that a router sent on to the partition that its id names, where it is read",
    "markers": "records that restore a state, and are no feedback",
    "undecodable": "records that cannot be read, and feedback that says nothing or too much",
    "no_audit": "decisions that say an audit follows, of which none was read",
}
"""What a reading counts, with its meaning; `docs/reference/replay-files.md` has the same."""
GROUP_ROWS, GROUP_ROWS_WITH_INPUTS = 65_536, 4_096
"""Decisions in a row group, which readers have in memory as a whole: an input may be an image."""
AT_ONCE = 8_192
"""Most records that are decoded together."""
FETCH_WAIT_S = 0.1
"""Of a long reading: a topic that has come to its end is asked about a few times a second, and no more."""
_ALL = Span()

Progress: TypeAlias = Callable[[int], None]
"""Called with the number of records read since the last call."""


class NoSuchApplication(SetupError):
    """No application of this name is registered, so its loss is unknown."""


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
    """

    kafka: KafkaConnection
    catalogue: Catalogue
    application: str
    loss_kind: str
    span: Span = _ALL
    inputs: bool = False


async def log_of(
    kafka: KafkaConnection, catalogue: Catalogue, application: str, span: Span, *, inputs: bool = False
) -> KafkaLog:
    """Return the logs of a registered application with the loss of its current manifest; arguments as of `KafkaLog`.

    Raises:
        NoSuchApplication: the application is not registered.
        KafkaUnreachable: no broker answers.
        TopicMismatch: there is no control topic.
    """
    manifests = (await read_manifests(kafka, catalogue)).applications
    if application not in manifests:
        known = ", ".join(sorted(manifests)) or "none"
        raise NoSuchApplication(f"no application {application!r} on {catalogue.control}: there are {known}")
    return KafkaLog(
        kafka=kafka,
        catalogue=catalogue,
        application=application,
        loss_kind=manifests[application].loss,
        span=span,
        inputs=inputs,
    )


def export_log(
    log: KafkaLog,
    out: Path,
    processes: int,
    total: Callable[[int], None] = lambda _: None,
    progress: Progress = lambda _: None,
) -> FileFacts:
    """Write the decisions to a file, which appears once all of them have been read.

    Args:
        log: The logs; they are read up to where they end now.
        out: The file; it must not exist.
        processes: Number of reading processes, and of threads that join.
        total: Called with the number of records to read.
        progress: Called with the number of records read since the last call.

    Returns:
        The metadata of the file.

    Raises:
        UnusableFile: the file exists.
        KafkaUnreachable: no broker answers.
        ReadingBroken: a reading process was killed.
    """
    facts = FileFacts(
        application=log.application,
        loss_kind=log.loss_kind,
        since_ms=log.span.since_ms,
        until_ms=log.span.until_ms,
        horizon_s=log.span.horizon_s,
    )
    with new_file(out) as path, tempfile.TemporaryDirectory(prefix="clipper-replay-") as folder:
        spans = asyncio.run(_spans(log))
        total(sum(span.records for span in spans))
        counts = read_tables(log, spans, Path(folder), processes, progress)
        rules = JoinRules(
            application=log.application,
            loss_kind=log.loss_kind,
            horizon_ms=log.span.horizon_ms,
            partitions=log.catalogue.partitions,
        )
        with DecisionJoin(Path(folder), rules, processes) as join:
            counts.update(join.counts)
            named = {name: counts[name] for name in COUNTS}
            facts = replace(
                facts,
                offsets={span.partition: (span.first, span.predictions.end) for span in spans},
                counts=named | {"without_feedback": counts["decisions"] - counts["with_feedback"]},
                models=join.models,
                decisions=counts["decisions"],
            )
            join.write(path, facts.metadata, GROUP_ROWS_WITH_INPUTS if log.inputs else GROUP_ROWS)
    return facts


async def _spans(log: KafkaLog) -> list[PartitionSpan]:
    async with open_reader(log.kafka, isolation_level="read_committed") as reader:
        return await partition_spans(reader, log.catalogue, log.span)


# --- reading ----------------------------------------------------------------------------------------------------------
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
    """Read a share into tables, in a process that does nothing else, and count the records."""
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
    async with open_reader(log.kafka, isolation_level="read_committed", fetch_wait_s=FETCH_WAIT_S) as reader:
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
