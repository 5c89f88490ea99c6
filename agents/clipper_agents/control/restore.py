"""Restores the selection state of an application from saved rows.

read_rows --> plan_restore --> carry_out: declaration, acknowledged --> markers, acknowledged --> (routers fold them)
                  UnusableRows, NoSuchRestore     | broken off here: plan_resumed with the same rows, carry_out

Rules of this file:
- The declaration is on the control topic before the first marker is sent, with the digests of all of them.
- Every partition gets a marker, also one without rows, so that its rows of the application are emptied.
- A restore that was broken off is finished under its own id: a marker that comes twice counts once.
"""

import asyncio
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
from aiokafka.errors import KafkaError

from clipper_agents.control.change_records import Signature
from clipper_agents.control.errors import NoSuchRestore, RestoreBrokenOff, UnusableState
from clipper_agents.control.selection_states import read_rows
from clipper_agents.control.state import ControlState, DeclaredRestore, read_control, shown_key
from clipper_agents.kafka.clients import make_producer, unreachable
from clipper_agents.kafka.errors import checked_partitions
from clipper_agents.kafka.topics import existing_topics
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import change_key, restore_key
from clipper_topics.restore import MAX_BEFORE_BYTES, RESTORE, Restore, UnusableRows, digests_of, markers_of
from clipper_topics.selection_rows import SavedRow

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlan:
    """A restore to be carried out, with the value of each partition's marker; repeated until every marker is stored."""

    restore_id: str
    restore: Restore
    markers: Sequence[bytes]
    declared: bool = False


async def restore_state(
    connection: KafkaConnection, catalogue: Catalogue, application: str, rows: Iterable[SavedRow], signature: Signature
) -> str:
    """Restore the rows of an application, and return the id when declaration and markers are stored: routers follow.

    Feedback that comes after the markers is learned on top of the rows. Feedback that counted before does not count
    again.

    Raises:
        UnusableState: rows that no restore can have.
        RestoreBrokenOff: it is declared, and not every marker was stored; the message says how to go on.
        KafkaUnreachable: no broker answers; nothing is restored.
        TopicMismatch: a topic is missing, or has other partitions than the settings say.
    """
    plan = await plan_restore(connection, catalogue, application, rows, signature)
    await carry_out(connection, catalogue, plan)
    return plan.restore_id


async def plan_restore(
    connection: KafkaConnection,
    catalogue: Catalogue,
    application: str,
    rows: Iterable[SavedRow],
    signature: Signature,
    undoes: str | None = None,
) -> RestorePlan:
    """Plan a restore that keeps the present rows, so that it can be undone; errors as of `restore_state`.

    `undoes` is the id of the restore that this one takes back.
    """
    markers = await _markers(connection, catalogue, application, rows)
    before = await read_rows(connection, catalogue, application)
    restore = Restore(
        application=application,
        at_ms=round(time.time() * 1000),
        by=signature.by,
        why=signature.why,
        digests=digests_of(markers),
        undoes=undoes,
        before=before if len(_encode(before)) <= MAX_BEFORE_BYTES else None,
    )
    return RestorePlan(restore_id=f"r-{secrets.token_hex(8)}", restore=restore, markers=markers)


async def plan_resumed(
    connection: KafkaConnection, catalogue: Catalogue, application: str, restore_id: str, rows: Iterable[SavedRow]
) -> RestorePlan:
    """Plan the rest of a restore that was broken off, with the same rows.

    Raises:
        NoSuchRestore: it is not declared, or a later one of the application is.
        UnusableState: these are other rows.
    """
    declared = (await read_control(connection, catalogue)).restores
    own = {one.restore_id: one.restore for one in declared.values() if one.restore.application == application}
    found = own.get(restore_id)
    if found is None:
        raise NoSuchRestore(f"no restore {restore_id} of {application} on {catalogue.control}: start a new one")
    newest = [*own][-1]
    if newest != restore_id:
        raise NoSuchRestore(f"restore {restore_id} of {application} is older than {newest}: start a new one")
    markers = await _markers(connection, catalogue, application, rows)
    if digests_of(markers) != found.digests:
        raise UnusableState(f"restore {restore_id} was declared with other rows: give the same, or start a new one")
    return RestorePlan(restore_id=restore_id, restore=found, markers=markers, declared=True)


async def carry_out(connection: KafkaConnection, catalogue: Catalogue, plan: RestorePlan) -> None:
    """Store the declaration, then the markers; errors as of `restore_state`."""
    producer = make_producer(connection)
    declared = plan.declared
    try:
        await producer.start()
        if not declared:
            value = codec.restores.encode(plan.restore)
            await producer.send_and_wait(catalogue.control, value, restore_key(plan.restore_id), partition=0)
            declared = True
        headers = [*codec.MSGPACK_HEADERS, (RESTORE, plan.restore_id.encode())]
        sent = [
            await producer.send(catalogue.feedback, value, partition=number, headers=headers)
            for number, value in enumerate(plan.markers)
        ]
        await asyncio.gather(*sent)
    except KafkaError as error:
        reason = await unreachable(connection, error)
        if not declared:
            raise reason from error
        raise RestoreBrokenOff(
            f"restore {plan.restore_id} is declared, and may not be in every partition: {reason}: "
            f"repeat it with the same rows and `--resume {plan.restore_id}`"
        ) from error
    finally:
        await producer.stop()


def to_undo(declared: Iterable[DeclaredRestore], application: str) -> DeclaredRestore:
    """Return the newest restore of an application that neither undoes another one nor is undone.

    Raises:
        NoSuchRestore: there is none, or the rows before it were too many to keep.
    """
    own = [one for one in declared if one.restore.application == application]
    undone = {one.restore.undoes for one in own}
    open_ones = [one for one in own if one.restore.undoes is None and one.restore_id not in undone]
    if not open_ones:
        raise NoSuchRestore(f"no restore of {application} to undo: `selection restore` begins one")
    if open_ones[-1].restore.before is None:
        raise NoSuchRestore(
            f"restore {open_ones[-1].restore_id} of {application} cannot be undone: the rows before it took more than "
            f"{MAX_BEFORE_BYTES} bytes: give a file of `selection export` with --from"
        )
    return open_ones[-1]


def rows_of_change(state: ControlState, catalogue: Catalogue, application: str, revision: int) -> list[SavedRow]:
    """Return the rows that the change to a revision keeps.

    Raises:
        NoSuchRestore: nothing is known of the change, it cannot be read, or it keeps no rows.
    """
    found = state.changes.get(application, {}).get(revision)
    if found is None:
        refused = state.ignored.get(shown_key(change_key(application, revision)))
        if refused is not None:
            raise NoSuchRestore(f"change of {application} to revision {revision} is unreadable: {refused.reason}")
        raise NoSuchRestore(f"no change of {application} to revision {revision} on {catalogue.control}: give another")
    if found.rows is None:
        raise NoSuchRestore(
            f"the change of {application} to revision {revision} keeps no rows, they were too many: "
            "give a file of `selection export` with --from"
        )
    return found.rows


def saved_source(
    state: ControlState, catalogue: Catalogue, application: str, revision: int | None, *, but: str | None = None
) -> tuple[str | None, list[SavedRow]]:
    """Return the rows that the change to a revision keeps, or else those before the newest restore, with its id.

    The restore with the id `but` does not count. Errors as of `rows_of_change` and `to_undo`.
    """
    if revision is not None:
        return None, rows_of_change(state, catalogue, application, revision)
    undone = to_undo([one for one in state.restores.values() if one.restore_id != but], application)
    return undone.restore_id, undone.restore.before or []


async def _markers(
    connection: KafkaConnection, catalogue: Catalogue, application: str, rows: Iterable[SavedRow]
) -> list[bytes]:
    """Return the value of the marker of each partition; a partition without a marker would keep its rows."""
    found = await existing_topics(connection, catalogue.prefix)
    checked_partitions(catalogue.feedback, found.get(catalogue.feedback), catalogue.partitions)
    try:
        return markers_of(application, rows, catalogue.partitions)
    except UnusableRows as error:
        raise UnusableState(f"{application}: {error}") from error
