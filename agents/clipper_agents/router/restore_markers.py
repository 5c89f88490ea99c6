"""Markers of restored states in the feedback topic: which of them count.

Rules of this file:
- A marker counts only with its declaration on the control topic, which was written before it. So one that is not known
  yet is looked for once more when the control topic has been followed to where it ended then; after that it is refused.
- Nothing that a record says stops the reader.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import msgspec
from aiokafka import ConsumerRecord

from clipper_agents.control.manifests import shown_key
from clipper_topics import codec
from clipper_topics.codec import UndecodableRecord
from clipper_topics.control_keys import restore_id_in
from clipper_topics.manifests import MAX_MANIFEST_BYTES
from clipper_topics.restore import Marker, Restore, UnusableRows, decode_marker, refusal_of, restore_id_of

logger = logging.getLogger(__name__)

KEPT_RESTORES = 1_000
"""The newest: markers of older ones are behind every router by far."""
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


class Declared(NamedTuple):
    """A declaration, and its offset on the control topic."""

    restore: Restore
    offset: int


class Restores:
    """The declarations on the control topic, by id; the newest `KEPT_RESTORES`."""

    def __init__(self, kept: int = KEPT_RESTORES) -> None:
        self._kept = kept
        self._declared: dict[str, Declared] = {}

    def take(self, records: Iterable[Record]) -> None:
        """Take in records of the control topic; those of other kinds are ignored."""
        for record in records:
            restore_id = restore_id_in(record.key)
            if restore_id is not None:
                self._put(restore_id, record)

    def find(self, restore_id: str) -> Declared | None:
        """The declaration of this id."""
        return self._declared.get(restore_id)

    def _put(self, restore_id: str, record: Record) -> None:
        """The first record of an id is its declaration: it says which of two restores is the later one."""
        if not record.value:
            self._declared.pop(restore_id, None)
            return
        try:
            restore = _decoded(record.value, record.headers)
        except UndecodableRecord as error:
            logger.error("restore ignored key=%s reason=%s", shown_key(record.key), error)  # noqa: TRY400 (a reason, no defect)
            return
        restore = msgspec.structs.replace(restore, before=None)
        self._declared.setdefault(restore_id, Declared(restore, record.offset))
        while len(self._declared) > self._kept:
            del self._declared[next(iter(self._declared))]


def _decoded(value: bytes, headers: Iterable[tuple[str, bytes]]) -> Restore:
    if len(value) > MAX_MANIFEST_BYTES:
        raise UndecodableRecord(f"a restore of {len(value)} bytes: it has at most {MAX_MANIFEST_BYTES}")
    return codec.restores.decode(value, headers)


def is_marker(record: Record) -> bool:
    """Whether a record of the feedback topic is a marker, or claims to be one."""
    return restore_id_of(record.headers) is not None


def read_markers(
    claims: Iterable[Record], find: Callable[[str], Declared | None], partitions: int
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


def read_marker(record: Record, find: Callable[[str], Declared | None], partitions: int) -> Restored:
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
        reason = refusal_of(declared and declared.restore, restore_id, value, record.partition)
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
