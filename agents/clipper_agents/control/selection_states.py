"""Selection states: as the library has them, as they are stored, and as a file or a change keeps them.

Rules of this file:
- `state_of` and `row_of` are the one way between a stored row and the library's state.
- Rows are read from the routers' changelog, where those of contexts are too.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import ConsumerRecord, TopicPartition

from clipper_agents.control.errors import UnusableState
from clipper_agents.kafka.reader import LogReader, read_topic
from clipper_stream.errors import shown
from clipper_stream.selection.state import ModelTotals, SelectionState, merge
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.selection_rows import (
    ROW_VERSION,
    ModelTotalsRecord,
    RowKey,
    SavedRow,
    SelectionRow,
    read_row,
    saved_rows,
    set_row,
    unsaved,
)

log = logging.getLogger(__name__)

MOST_ROWS = 1_000
WITHIN_S = 10.0
"""For the changelog of all applications. One that takes longer belongs to a deployment with very many contexts, of
which a change would keep no rows anyway."""


# --- as the library has them ----------------------------------------------------------------------------------------
def state_of(row: SelectionRow) -> SelectionState:
    """Return a row as the library's state."""
    totals = {
        one.model: ModelTotals(one.count, one.loss, one.weighted_count, one.weighted_loss, one.moments, one.calibration)
        for one in row.totals
    }
    return SelectionState(totals, row.at_ms, row.half_life_s)


def row_of(state: SelectionState, offset: int, applied: int) -> SelectionRow:
    """Return a state as a row, with the offset of the last feedback in it, and how many feedbacks counted."""
    totals = [
        ModelTotalsRecord(
            model, sums.count, sums.loss, sums.weighted_loss, sums.weighted_count, sums.moments, sums.calibration
        )
        for model, sums in state.totals.items()
    ]
    return SelectionRow(
        version=ROW_VERSION,
        offset=offset,
        applied=applied,
        totals=totals,
        at_ms=state.at_ms,
        half_life_s=state.half_life_s,
    )


def state_of_rows(rows: Iterable[SavedRow], context: str | None) -> SelectionState:
    """Return what the policy sees: the rows of a context, or those without one, added in partition order."""
    wanted = sorted((row for row in rows if row.context == context), key=lambda row: row.partition)
    return merge(state_of(unsaved(row)) for row in wanted)


# --- as they are stored ---------------------------------------------------------------------------------------------
def take_rows(found: Mapping[str, dict[RowKey, SelectionRow]], records: Iterable[ConsumerRecord[Any, Any]]) -> None:
    """Add records of the changelog to the rows of each application that is wanted; the last of a key stays."""
    for record in records:
        read = read_row(record.key, record.value)
        if read is not None and (rows := found.get(read[0].application)) is not None:
            set_row(rows, *read)


async def read_rows(connection: KafkaConnection, catalogue: Catalogue, application: str) -> list[SavedRow]:
    """Return the rows of an application that are not empty, as the routers stored them, by partition and context."""
    rows: dict[RowKey, SelectionRow] = {}
    take = partial(take_rows, {application: rows})
    await read_topic(connection, catalogue, catalogue.selection_changelog, take)
    return saved_rows({key: row for key, row in rows.items() if row.totals})


# --- as a file keeps them -------------------------------------------------------------------------------------------
class SavedState(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The rows of an application in a file, but for empty ones."""

    application: str
    rows: list[SavedRow]
    policy: str = ""
    """With its parameters, where `replay learn` fitted it."""
    until_ms: int = 0
    """To decisions before this time, in milliseconds since the epoch."""


def read_state(file: Path, application: str) -> SavedState:
    """Return what a file of `selection export` or `replay learn` holds.

    Raises:
        UnusableState: it cannot be read, or holds another application.
    """
    try:
        state = msgspec.json.decode(file.read_bytes(), type=SavedState)
    except (OSError, ValueError, RecursionError) as error:
        raise UnusableState(f"{file}: {error}: give a file that `selection export` wrote") from error
    if state.application != application:
        raise UnusableState(
            f"{file} holds {shown(state.application)}, not {application}: give the file of {application}"
        )
    return state


# --- as a change keeps them -----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class StateSnapshot:
    """The ends of the feedback topic's partitions at a moment, and the selection state that was learned up to them.

    Of an application whose rows are too many to keep, there are none.
    """

    feedback_ends: tuple[int, ...] = ()
    rows: Mapping[str, list[SavedRow]] = field(default_factory=dict)


async def read_snapshot(
    reader: LogReader, catalogue: Catalogue, topics: Mapping[str, int], applications: Iterable[str]
) -> StateSnapshot:
    """Take a snapshot now, with the rows of these applications; without any the changelog is not read.

    `topics` are the partition counts of those that exist. The reader reads nothing else meanwhile.
    """
    feedback, changelog = (
        [TopicPartition(topic, number) for number in range(topics.get(topic, 0))]
        for topic in (catalogue.feedback, catalogue.selection_changelog)
    )
    ends, rows = await reader.end_offsets(feedback), dict[str, list[SavedRow]]()
    if (names := list(applications)) and changelog:
        try:
            async with asyncio.timeout(WITHIN_S):
                rows = kept_rows(await reader.read_all(changelog), names)
        except TimeoutError:
            log.warning("the selection state was not read within %.0f s: this change keeps none", WITHIN_S)
    return StateSnapshot(feedback_ends=tuple(ends[tp] for tp in feedback), rows=rows)


def kept_rows(records: Iterable[ConsumerRecord[Any, Any]], applications: Iterable[str]) -> dict[str, list[SavedRow]]:
    """Return the newest rows of these applications, without applications that have too many."""
    found: dict[str, dict[RowKey, SelectionRow]] = {name: {} for name in applications}
    take_rows(found, records)
    return {name: saved_rows(rows) for name, rows in found.items() if len(rows) <= MOST_ROWS}
