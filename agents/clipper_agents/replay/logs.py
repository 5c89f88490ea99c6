"""The logs of one application in Kafka, and their decisions, one partition after the other."""

import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clipper_agents.control.state import read_manifests
from clipper_agents.kafka.reader import open_reader
from clipper_agents.replay.inputs import InputReader
from clipper_agents.replay.partition_join import CHUNK_ROWS, MOST_IN_MEMORY, JoinRules, PartitionJoin
from clipper_agents.replay.partition_reader import Progress, read_partition
from clipper_agents.replay.span import PartitionSpan, Span, partition_spans
from clipper_stream.errors import SetupError
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

ROWS_WITH_INPUTS = 4_096
"""Decisions in a chunk with inputs: an input may be an image."""
ISOLATION_LEVEL: Final = "read_committed"
"""What was taken back is no decision."""
FETCH_WAIT_S = 0.1
"""Of a long reading: a topic that has come to its end is asked about a few times a second, and no more."""
_ALL = Span()


class NoSuchApplication(SetupError):
    """No application of this name is registered, so its loss is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionChunk:
    """Decisions of one partition, in log order.

    Attributes:
        columns: The decisions.
        inputs: Input of each query as JSON, None where Kafka has deleted it; None altogether if not asked for.

    >>> len(DecisionChunk(columns=DecisionColumns.empty()).columns)
    0
    """

    columns: DecisionColumns
    inputs: tuple[str | None, ...] | None = None


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
        chunk_rows: Most decisions in a chunk.
        most_in_memory: Most decisions of a partition that wait in memory; others wait on disk.
    """

    kafka: KafkaConnection
    catalogue: Catalogue
    application: str
    loss_kind: str
    span: Span = _ALL
    inputs: bool = False
    chunk_rows: int = CHUNK_ROWS
    most_in_memory: int = MOST_IN_MEMORY

    @property
    def rules(self) -> JoinRules:
        """Rules of the join."""
        return JoinRules(
            application=self.application,
            loss_kind=self.loss_kind,
            horizon_ms=self.span.horizon_ms,
            partitions=self.catalogue.partitions,
            chunk_rows=min(self.chunk_rows, ROWS_WITH_INPUTS) if self.inputs else self.chunk_rows,
            most_in_memory=self.most_in_memory,
        )


async def log_of(
    kafka: KafkaConnection, catalogue: Catalogue, application: str, span: Span, **settings: Any
) -> KafkaLog:
    """Return the logs of a registered application with the loss of its current manifest; settings as of `KafkaLog`.

    Raises:
        NoSuchApplication: the application is not registered.
        KafkaUnreachable: no broker answers.
        TopicMismatch: there is no control topic.
    """
    manifests = (await read_manifests(kafka, catalogue)).applications
    if application not in manifests:
        known = ", ".join(sorted(manifests)) or "none"
        raise NoSuchApplication(f"no application {application!r} on {catalogue.control}: there are {known}")
    loss_kind = manifests[application].loss
    return KafkaLog(
        kafka=kafka, catalogue=catalogue, application=application, loss_kind=loss_kind, span=span, **settings
    )


async def spans_of(log: KafkaLog) -> list[PartitionSpan]:
    """Return the current offsets of each partition of the span.

    Raises:
        KafkaUnreachable: no broker answers.
    """
    async with open_reader(log.kafka, isolation_level=ISOLATION_LEVEL) as reader:
        return await partition_spans(reader, log.catalogue, log.span)


async def read_spans(
    log: KafkaLog, spans: Sequence[PartitionSpan], counts: Counter[str], progress: Progress = lambda _: None
) -> AsyncIterator[DecisionChunk]:
    """Read the decisions of partitions, one partition after the other.

    Args:
        log: The logs.
        spans: Of `spans_of`.
        counts: Counts of records by outcome are added here.
        progress: Called with the number of records read since the last call.

    Raises:
        KafkaUnreachable: the broker went away.
    """
    async with (
        open_reader(log.kafka, isolation_level=ISOLATION_LEVEL, fetch_wait_s=FETCH_WAIT_S) as reader,
        open_reader(log.kafka, isolation_level=ISOLATION_LEVEL) as queries,
    ):
        for span in spans:
            inputs = InputReader(queries, log.catalogue, span.partition) if log.inputs else None
            with tempfile.TemporaryDirectory(prefix="clipper-replay-") as folder:
                join = PartitionJoin(span.partition, log.rules, span.first, Path(folder))
                try:
                    async for columns in read_partition(reader, log.catalogue, span, join, progress):
                        texts = None if inputs is None else await inputs.of(columns)
                        yield DecisionChunk(columns=columns, inputs=texts)
                finally:
                    join.close()
                    counts.update(join.counts)
