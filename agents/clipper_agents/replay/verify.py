"""The selection table of a deployment against the serial fold of its logs.

end of the changelog --> control topic --> each partition: decisions indexed --> feedback folded --> rows compared

Rules of this file:
- Where the changelog ends is looked at first: so everything that led to a row that is compared is in the logs that are
  read. A deployment may go on meanwhile; what comes later is not looked at.
- Logs are read whole. Where the beginning of one was deleted, nothing can be said, and nothing is.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from aiokafka import TopicPartition

from clipper_agents.control.state import control_state
from clipper_agents.feedback.feedback_step import Row
from clipper_agents.kafka.errors import checked_partitions
from clipper_agents.kafka.reader import LogReader, open_reader
from clipper_agents.kafka.topics import existing_topics
from clipper_agents.replay.refold import PartitionFold, SelectionTable, VerificationInputs, learning_configs
from clipper_agents.replay.verdicts import PartitionVerdict, RowMismatch, Verification, shown_row
from clipper_stream.errors import SetupError
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.selection_rows import POSITION, encode_row, note_row


class BeginningDeleted(SetupError):
    """A log no longer has its first records, so what it leads to is unknown."""


async def verify(connection: KafkaConnection, catalogue: Catalogue, horizon_s: float) -> Verification:
    """Fold the logs of a deployment again and compare, with the horizon of feedback, in seconds, that its routers have.

    Raises:
        BeginningDeleted: a log has lost its first records.
        KafkaUnreachable: no broker answers.
        TopicMismatch: a topic is missing, or has other partitions than the settings say.
    """
    found = await existing_topics(connection, catalogue.prefix)
    wanted = {spec.name: spec.partitions for spec in catalogue.fixed_topics()}
    read = (catalogue.predictions, catalogue.audits, catalogue.feedback, catalogue.selection_changelog)
    for topic in (*read, catalogue.control):
        checked_partitions(topic, found.get(topic), wanted[topic])
    async with open_reader(connection) as reader:
        return await verify_logs(reader, catalogue, horizon_s)


async def verify_logs(reader: LogReader, catalogue: Catalogue, horizon_s: float) -> Verification:
    """Verify what a reader of committed records reads; errors as of `verify`."""
    started_s = time.perf_counter()
    known = await read_known(reader, catalogue, horizon_s)
    found = [await _verify_partition(reader, known, partition) for partition in range(catalogue.partitions)]
    equal = not any(verdict.partings for verdict in found)
    return Verification(equal=equal, seconds=round(time.perf_counter() - started_s, 3), partitions=found)


async def read_known(reader: LogReader, catalogue: Catalogue, horizon_s: float) -> VerificationInputs:
    """Read what all partitions share."""
    changelog = [TopicPartition(catalogue.selection_changelog, number) for number in range(catalogue.partitions)]
    ends = await reader.end_offsets(changelog)
    control = await control_state(reader, catalogue)
    return VerificationInputs(
        catalogue=catalogue,
        configs=learning_configs(control),
        restores=control.restores,
        changelog_ends=[ends[tp] for tp in changelog],
        horizon_s=horizon_s,
    )


async def _verify_partition(reader: LogReader, known: VerificationInputs, partition: int) -> PartitionVerdict:
    topics, table = known.catalogue, SelectionTable(partition)
    changelog, predictions, audits, feedback = (
        TopicPartition(topic, partition)
        for topic in (topics.selection_changelog, topics.predictions, topics.audits, topics.feedback)
    )
    end_of_table = {changelog: known.changelog_ends[partition]}
    await reader.read({changelog: None}, lambda _, records: table.take(records), end_of_table)
    ends = {tp: await _whole(reader, tp) for tp in (feedback, predictions, audits)}
    upto = 1 + max((row.offset for row in table.rows.values()), default=-1)
    with TemporaryDirectory(prefix="clipper-verify-") as folder, PartitionFold(Path(folder), known, table) as fold:
        await reader.read({predictions: 0}, lambda _, records: fold.take_predictions(records), ends)
        await reader.read({audits: 0}, lambda _, records: fold.take_audits(records), ends)
        folded = {feedback: min(ends[feedback], upto)}
        await reader.read({feedback: 0}, lambda _, records: fold.take_feedback(records), folded)
        fold.forget_contexts(upto)
    wanted = [place for place in dict.fromkeys([*table.rows, *fold.rows]) if place[0] not in fold.unlogged]
    return PartitionVerdict(
        partition=partition,
        position=table.position,
        behind=max(0, ends[feedback] - 1 - table.position),
        feedbacks=fold.folded,
        rows=sum(place in table.rows for place in wanted),
        partings=[*_mismatches(partition, table, fold, wanted, ends[feedback]), *_misplaced(table)],
        unlogged=sorted(fold.unlogged),
    )


def _mismatches(
    partition: int, table: SelectionTable, fold: PartitionFold, places: Sequence[Row], end: int
) -> Iterator[RowMismatch]:
    """Yield the rows that differ in any bit: each float as its eight bytes, models in order."""
    for place in places:
        stored, folded = table.rows.get(place), fold.rows.get(place)
        if place == POSITION:
            folded = stored if table.position < end else note_row(end - 1)
        if (stored and encode_row(stored)) != (folded and encode_row(folded)):
            yield RowMismatch(
                application=place[0],
                context=place[1],
                partition=partition,
                table=shown_row(stored),
                logs=shown_row(folded),
            )


def _misplaced(table: SelectionTable) -> Iterator[RowMismatch]:
    for key, row in table.misplaced.items():
        yield RowMismatch(
            application=key.application, context=key.context, partition=key.partition, table=shown_row(row), logs=None
        )


async def _whole(reader: LogReader, tp: TopicPartition) -> int:
    start, end = (await reader.ranges([tp]))[tp]
    if start:
        raise BeginningDeleted(
            f"{tp.topic}[{tp.partition}] begins at offset {start}: what was deleted before it led to rows of the "
            "table, so nothing can be verified: keep the logs for longer by `retention.ms`"
        )
    return end
