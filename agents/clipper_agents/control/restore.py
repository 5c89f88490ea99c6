"""Restores the selection state of an application from saved rows.

read_rows --> plan_restore --> carry_out: declaration, acknowledged --> markers, acknowledged --> (routers fold them)
                  UnusableRows, NoSuchRestore     | broken off here: a new restore with the same rows

Rules of this file:
- The declaration is on the control topic before the first marker is sent, with the digests of all of them.
- Every partition gets a marker, also one without rows, so that its rows of the application are emptied.
- A restore that was broken off is followed by a new one: the later one wins in every partition.
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
from clipper_agents.control.state import DeclaredRestore
from clipper_agents.kafka.clients import make_producer, unreachable
from clipper_agents.kafka.errors import checked_partitions
from clipper_agents.kafka.topics import existing_topics
from clipper_stream.client.kafka import stop
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import restore_key
from clipper_topics.restore import MAX_BEFORE_BYTES, RESTORE, Restore, UnusableRows, digests_of, markers_of
from clipper_topics.selection_rows import SavedRow

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlan:
    """A restore to be carried out, with the value of each partition's marker."""

    restore_id: str
    restore: Restore
    markers: Sequence[bytes]


async def plan_restore(
    connection: KafkaConnection,
    catalogue: Catalogue,
    application: str,
    rows: Iterable[SavedRow],
    signature: Signature,
    undoes: str | None = None,
) -> RestorePlan:
    """Plan a restore that keeps the present rows, so that it can be undone.

    `undoes` is the id of the restore that this one takes back.

    Raises:
        UnusableState: rows that no restore can have.
        KafkaUnreachable: no broker answers.
        TopicMismatch: a topic is missing, or has other partitions than the settings say.
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


async def carry_out(connection: KafkaConnection, catalogue: Catalogue, plan: RestorePlan) -> None:
    """Store the declaration, then the markers: routers follow.

    Feedback that comes after the markers is learned on top of the rows; what counted before does not count again.

    Raises:
        RestoreBrokenOff: it is declared, and not every marker was stored.
        KafkaUnreachable: no broker answers; nothing is restored.
    """
    producer = make_producer(connection)
    declared = False
    try:
        await producer.start()
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
            f"restore {plan.restore_id} is declared, and may not be in every partition: {reason}: repeat it"
        ) from error
    finally:
        await stop(producer)


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
