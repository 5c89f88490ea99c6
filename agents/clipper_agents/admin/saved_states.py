"""Selection states as they can be kept: the rows of an application now, in a file, and in the record of a change."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import ConsumerRecord

from clipper_agents.admin.errors import NoSuchRestore, UnusableState
from clipper_agents.admin.reading import read_topic
from clipper_stream.errors import shown
from clipper_stream.selection.state import ModelTotals, SelectionState, merge
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.change import Change, SavedRow
from clipper_topics.codec import UndecodableRecord
from clipper_topics.connection import KafkaConnection
from clipper_topics.control import change_key
from clipper_topics.selection_totals import ROW_VERSION, RowKey, SelectionRow

_keys = msgspec.msgpack.Decoder(RowKey)
_rows = msgspec.msgpack.Decoder(SelectionRow)


class SavedState(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The rows of an application in a file."""

    application: str
    """The application."""
    rows: list[SavedRow]
    """Every row that is not empty."""


async def read_rows(connection: KafkaConnection, catalogue: Catalogue, application: str) -> list[SavedRow]:
    """The rows of an application that are not empty, as the routers have stored them, by partition and context.

    Raises:
        KafkaUnreachable: no broker answers.
        TopicMismatch: there is no changelog.
    """
    newest: dict[RowKey, SelectionRow] = {}

    def take(records: list[ConsumerRecord[Any, Any]]) -> None:
        for record in records:
            found = _row_of(record, application)
            if found is not None and (found[0] not in newest or found[1].offset > newest[found[0]].offset):
                newest[found[0]] = found[1]

    await read_topic(connection, catalogue, catalogue.selection_changelog, take)
    ordered = sorted(newest.items(), key=lambda item: (item[0].partition, item[0].context or ""))
    return [_saved(key, row) for key, row in ordered if row.totals]


async def read_change(connection: KafkaConnection, catalogue: Catalogue, application: str, revision: int) -> Change:
    """What was done to an application to make it this revision.

    Raises:
        NoSuchRestore: nothing is known of it, or it cannot be read.
        KafkaUnreachable: no broker answers.
        TopicMismatch: there is no control topic.
    """
    key, values = change_key(application, revision), list[tuple[bytes | None, Any]]()

    def take(records: list[ConsumerRecord[Any, Any]]) -> None:
        values.extend((one.value, one.headers) for one in records if one.key == key)

    await read_topic(connection, catalogue, catalogue.control, take)
    value, headers = values[-1] if values else (None, ())
    if not value:
        raise NoSuchRestore(f"no change of {application} to revision {revision} on {catalogue.control}: give another")
    try:
        return codec.changes.decode(value, headers)
    except UndecodableRecord as error:
        raise NoSuchRestore(f"change of {application} to revision {revision} is unreadable: {error}") from error


def read_state(file: Path, application: str) -> list[SavedRow]:
    """The rows of a file of `selection export`.

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
    return state.rows


def state_of_rows(rows: Iterable[SavedRow], context: str | None) -> SelectionState:
    """What the policy sees: the rows of a context, or those without one, added in partition order."""
    wanted = sorted((row for row in rows if row.context == context), key=lambda row: row.partition)
    return merge(SelectionState({ref: ModelTotals(*sums) for ref, sums in row.totals.items()}) for row in wanted)


def _row_of(record: ConsumerRecord[Any, Any], application: str) -> tuple[RowKey, SelectionRow] | None:
    """The row of a changelog record, None when it is of another application."""
    if record.key is None or record.value is None:
        return None
    try:
        key = _keys.decode(record.key)
        row = _rows.decode(record.value) if key.application == application else None
    except ValueError:  # written by nobody who knows the table
        return None
    return None if row is None or row.version != ROW_VERSION else (key, row)


def _saved(key: RowKey, row: SelectionRow) -> SavedRow:
    sums = {one.model: (one.count, one.loss, one.weighted_count, one.weighted_loss) for one in row.totals}
    return SavedRow(partition=key.partition, context=key.context, totals=sums)
