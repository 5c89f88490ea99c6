"""The selection table of a deployment against the serial fold of its logs.

end of the changelog --> control topic --> each partition: decisions indexed --> feedback folded --> rows compared

Rules of this file:
- Where the changelog ends is looked at first: so everything that led to a row that is compared is in the logs that are
  read. A deployment may go on meanwhile; what comes later is not looked at.
- Logs are read whole. Where the beginning of one was deleted, nothing can be said, and nothing is.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory

from clipper_agents.control.state import ControlState
from clipper_agents.feedback.feedback_step import Row
from clipper_agents.kafka.reader import Record
from clipper_agents.replay.log_ranges import Logs
from clipper_agents.replay.refold import PartitionFold, SelectionTable, VerificationInputs, learning_configs
from clipper_agents.replay.verdicts import PartitionVerdict, RowMismatch, Verification, shown_row
from clipper_stream.errors import SetupError
from clipper_topics.catalogue import Catalogue
from clipper_topics.selection_rows import POSITION, encode_row, note_row


class BeginningDeleted(SetupError):
    """A log no longer has its first records, so what it leads to is unknown."""


async def verify(
    logs: Logs,
    catalogue: Catalogue,
    horizon_s: float,
    application: str | None = None,
    told: Callable[[PartitionVerdict], None] = lambda _: None,
) -> Verification:
    """Fold the logs again and compare.

    Args:
        logs: Logs of a deployment, such as `open_logs` opens.
        catalogue: Topics of the deployment.
        horizon_s: How long after its query a feedback counts, in seconds, as the routers have it.
        application: The application whose rows are compared; None: all.
        told: Called with the verdict on each partition.

    Raises:
        BeginningDeleted: a log has lost its first records.
        KafkaUnreachable: no broker answers.
    """
    started_s = time.perf_counter()
    known = await read_known(logs, catalogue, horizon_s)
    found: list[PartitionVerdict] = []
    for partition in range(catalogue.partitions):
        found.append(await _verify_partition(logs, known, partition, application))
        told(found[-1])
    equal = not any(verdict.partings for verdict in found)
    return Verification(equal=equal, seconds=round(time.perf_counter() - started_s, 3), partitions=found)


async def read_known(logs: Logs, catalogue: Catalogue, horizon_s: float) -> VerificationInputs:
    """Read what all partitions share; arguments as of `verify`."""
    changelog = catalogue.selection_changelog
    ends = [(await logs.bounds(changelog, number))[1] for number in range(catalogue.partitions)]
    control = ControlState(saved_rows=False)
    async for records in _records(logs, catalogue.control, 0, *await logs.bounds(catalogue.control, 0)):
        control.take(records)
    return VerificationInputs(
        catalogue=catalogue,
        configs=learning_configs(control),
        restores=control.restores,
        changelog_ends=ends,
        horizon_s=horizon_s,
    )


async def _verify_partition(
    logs: Logs, known: VerificationInputs, partition: int, application: str | None
) -> PartitionVerdict:
    topics, table = known.catalogue, SelectionTable(partition)
    changelog = topics.selection_changelog
    start, _ = await logs.bounds(changelog, partition)
    async for records in _records(logs, changelog, partition, start, known.changelog_ends[partition]):
        table.take(records)
    end = await _whole(logs, topics.feedback, partition)
    upto = 1 + max((row.offset for row in table.rows.values()), default=-1)
    with TemporaryDirectory(prefix="clipper-verify-") as folder, PartitionFold(Path(folder), known, table) as fold:
        for topic, stop, take in (
            (topics.predictions, await _whole(logs, topics.predictions, partition), fold.take_predictions),
            (topics.audits, await _whole(logs, topics.audits, partition), fold.take_audits),
            (topics.feedback, min(end, upto), fold.take_feedback),
        ):
            async for records in _records(logs, topic, partition, 0, stop):
                take(records)
        fold.forget_contexts(upto)
    wanted = [
        place
        for place in dict.fromkeys([*table.rows, *fold.rows])
        if place[0] not in fold.unlogged and application in (None, place[0] or place[1] or application)
    ]
    return PartitionVerdict(
        partition=partition,
        position=table.position,
        behind=max(0, end - 1 - table.position),
        feedbacks=fold.folded,
        rows=sum(place in table.rows for place in wanted),
        partings=[*_mismatches(partition, table, fold, wanted, end), *_misplaced(table, application)],
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


def _misplaced(table: SelectionTable, application: str | None) -> Iterator[RowMismatch]:
    for key, row in table.misplaced.items():
        if application in (None, key.application):
            yield RowMismatch(
                application=key.application,
                context=key.context,
                partition=key.partition,
                table=shown_row(row),
                logs=None,
            )


async def _whole(logs: Logs, topic: str, partition: int) -> int:
    start, end = await logs.bounds(topic, partition)
    if start:
        raise BeginningDeleted(
            f"{topic}[{partition}] begins at offset {start}: what was deleted before it led to rows of the table, so "
            "nothing can be verified: keep the logs for longer by `retention.ms`"
        )
    return end


async def _records(logs: Logs, topic: str, partition: int, start: int, end: int) -> AsyncIterator[list[Record]]:
    async with aclosing(logs.read(topic, partition, start, end)) as lists:
        async for records in lists:
            yield records
