"""Selection states as they can be kept: the rows of an application now, in a file, and in the record of a change."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import ConsumerRecord

from clipper_agents.control.state_snapshots import row_of, saved_row
from clipper_agents.kafka.errors import NoSuchRestore, UnusableState
from clipper_agents.kafka.whole_topic import read_topic
from clipper_stream.errors import shown
from clipper_stream.selection.state import ModelTotals, SelectionState, merge
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.change import Change, SavedRow
from clipper_topics.codec import UndecodableRecord
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import change_key
from clipper_topics.selection_rows import RowKey, SelectionRow


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
            found = row_of(record)
            if found is not None and found[0].application == application:
                key, row = found
                if key not in newest or row.offset > newest[key].offset:
                    newest[key] = row

    await read_topic(connection, catalogue, catalogue.selection_changelog, take)
    ordered = sorted(newest.items(), key=lambda item: (item[0].partition, item[0].context or ""))
    return [saved_row(key, row) for key, row in ordered if row.totals]


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
    return merge(
        SelectionState({ref: ModelTotals(*sums, row.moments.get(ref, ())) for ref, sums in row.totals.items()})
        for row in wanted
    )
