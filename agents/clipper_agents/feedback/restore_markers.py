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
    """A record claims to restore a state, and must not; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A marker that counts.

    Attributes:
        marker: The rows.
        declared: Offset of its declaration on the control topic: of two restores the later one wins.
    """

    marker: Marker
    declared: int


def is_marker(record: Record) -> bool:
    """Whether a record of the feedback topic is a marker, or claims to be one."""
    return restore_id_of(record.headers) is not None


def read_markers(
    claims: Iterable[Record], find: Callable[[str], DeclaredRestore | None], partitions: int
) -> tuple[list[tuple[Record, Restored]], list[tuple[Record, Exception]]]:
    """The markers that count, and those that must not, with the reason; arguments as of `read_marker`."""
    counted: list[tuple[Record, Restored]] = []
    refused: list[tuple[Record, Exception]] = []
    for record in claims:
        try:
            counted.append((record, read_marker(record, find, partitions)))
        except RefusedMarker as error:
            refused.append((record, error))
    return counted, refused


def read_marker(record: Record, find: Callable[[str], DeclaredRestore | None], partitions: int) -> Restored:
    """The marker of a record.

    Args:
        record: Of the feedback topic, with the header.
        find: Finds a declaration.
        partitions: Of the feedback topic.

    Raises:
        RefusedMarker: it must not count.
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
