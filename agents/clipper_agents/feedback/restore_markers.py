"""Markers of restored states in the feedback topic: which of them count.

Rules of this file:
- A marker counts only with its declaration on the control topic, which was written before it. So one that is not known
  yet is looked for once more when the control topic has been followed to where it ended then; after that it is refused.
- Nothing that a record says stops the reader.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiokafka import ConsumerRecord

from clipper_agents.control.state import DeclaredRestore
from clipper_topics.restore import Marker, UnusableRows, decode_marker, refusal_of, restore_id_of

Record: TypeAlias = ConsumerRecord[Any, Any]


class RefusedMarker(ValueError):
    """A record claims to restore a state and must not count; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A valid marker of a restored state.

    Attributes:
        marker: The rows.
        declared: Offset of its declaration on the control topic: of two restores the later one wins.
    """

    marker: Marker
    declared: int


def is_marker(record: Record) -> bool:
    """Return whether a record of the feedback topic is, or claims to be, a marker."""
    return restore_id_of(record.headers) is not None


def read_markers(
    claims: Iterable[Record], find: Callable[[str], DeclaredRestore | None], partitions: int
) -> tuple[list[tuple[Record, Restored]], list[tuple[Record, Exception]]]:
    """Return the valid markers, and the refused ones with the reason; arguments as of `read_marker`."""
    counted: list[tuple[Record, Restored]] = []
    refused: list[tuple[Record, Exception]] = []
    for record in claims:
        try:
            counted.append((record, read_marker(record, find, partitions)))
        except RefusedMarker as error:
            refused.append((record, error))
    return counted, refused


def read_marker(record: Record, find: Callable[[str], DeclaredRestore | None], partitions: int) -> Restored:
    """Decode and check the marker of a record.

    Args:
        record: Of the feedback topic, with the header.
        find: Finds the declaration of a restore.
        partitions: Number of partitions of the feedback topic.

    Raises:
        RefusedMarker: the marker must not count.
    """
    restore_id = restore_id_of(record.headers) or ""
    declared = find(restore_id)
    try:
        value = record.value or b""
        reason = refusal_of(None if declared is None else declared.restore, restore_id, value, record.partition)
        if reason is not None or declared is None:
            raise RefusedMarker(reason)
        marker = decode_marker(value, record.partition, partitions)
    except UnusableRows as error:
        raise RefusedMarker(str(error)) from error
    if marker.application != declared.restore.application:
        raise RefusedMarker(
            f"restore {restore_id} is about {declared.restore.application}, the marker about {marker.application}: "
            "nothing is restored"
        )
    return Restored(marker=marker, declared=declared.offset)
