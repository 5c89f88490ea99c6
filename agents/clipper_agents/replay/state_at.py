"""The selection rows of an application as of feedback offsets or a time: what a restore needs to set them back.

Rules of this file:
- Feedback counts that stands before an offset of its partition, or was stamped before a time.
- Where a row cannot be told, because the logs of what led to it were deleted, there is no state.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from clipper_agents.control.errors import UnusableState
from clipper_agents.replay.log_ranges import Logs
from clipper_agents.replay.partition_verifier import PartitionVerifier, VerificationInputs
from clipper_agents.replay.verdicts import RowMismatch
from clipper_agents.replay.verify import read_known, verifier
from clipper_topics.catalogue import Catalogue
from clipper_topics.selection_rows import RowKey, SavedRow, saved_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class StateAt:
    """Rows of an application as they were.

    Attributes:
        application: Name of the application.
        ends: One past the last feedback offset in the rows, of each partition.
        rows: The rows that are not empty, by partition and context.
        partings: Earlier rows of the table that differ from the fold of the logs; the fold is what is restored.
    """

    application: str
    ends: tuple[int, ...]
    rows: list[SavedRow]
    partings: list[RowMismatch]


async def state_at(
    logs: Logs,
    catalogue: Catalogue,
    application: str,
    horizon_s: float,
    *,
    at_ms: int | None = None,
    ends: Mapping[int, int] | None = None,
) -> StateAt:
    """Fold the logs up to a time or to offsets.

    Args:
        logs: Logs of a deployment, such as `open_logs` opens.
        catalogue: Topics of the deployment.
        application: Name of the application.
        horizon_s: How long after its query a feedback counts, in seconds, as the routers have it.
        at_ms: Milliseconds since the epoch; None: up to the offsets.
        ends: First offset that does not count, by partition; other partitions count as a whole.

    Raises:
        UnusableState: an offset is not in the log, or the logs no longer tell the state.
        KafkaUnreachable: no broker answers.
    """
    known = await read_known(logs, catalogue, horizon_s, application)
    found = await _ends(logs, catalogue, at_ms, ends or {})
    rows: list[SavedRow] = []
    partings: list[RowMismatch] = []
    for partition, end in enumerate(found):
        async with verifier(logs, known, partition) as one:
            rows += await _rows(one, known, partition, end)
            partings += one.parted.values()
    return StateAt(application=application, ends=found, rows=rows, partings=partings)


async def _ends(logs: Logs, catalogue: Catalogue, at_ms: int | None, wanted: Mapping[int, int]) -> tuple[int, ...]:
    strange = sorted(set(wanted) - set(range(catalogue.partitions)))
    if strange:
        raise UnusableState(f"partitions {strange}: give some of 0 to {catalogue.partitions - 1}")
    found = []
    for number in range(catalogue.partitions):
        start, end = await logs.bounds(catalogue.feedback, number)
        upto = end if at_ms is None else await logs.offset_at(catalogue.feedback, number, at_ms)
        found.append(_within(number, wanted.get(number, upto), start, end))
    return tuple(found)


def _within(partition: int, offset: int, start: int, end: int) -> int:
    if start <= offset <= end:
        return offset
    raise UnusableState(
        f"offset {offset} of partition {partition}: its feedback goes from {start} to {end}: give an offset of these"
    )


async def _rows(one: PartitionVerifier, known: VerificationInputs, partition: int, end: int) -> list[SavedRow]:
    rows = await one.rows_at(end - 1)
    own = [place for place in one.table.live if place[0] == known.application]
    untold = [place[1] for place in own if not rows.known(place)]
    if (end < one.since and own) or untold:
        raise UnusableState(
            f"the state of {known.application} in partition {partition} before offset {end} is not known: the logs "
            f"that led to it were deleted, and tell it from offset {one.since} on, or from its next row on: give a "
            "later time or offset, or restore a file or a revision by `selection restore`"
        )
    if known.application in one.unlogged:
        raise UnusableState(
            f"the state of {known.application} in partition {partition} before offset {end} is not known: an older "
            "version folded it, which did not log when a changed policy or loss took effect: restore a file or a "
            "revision by `selection restore`"
        )
    own_rows = {place: row for place, row in rows.rows.items() if place[0] == known.application and row.totals}
    return saved_rows({RowKey(*place, partition): row for place, row in own_rows.items()})
