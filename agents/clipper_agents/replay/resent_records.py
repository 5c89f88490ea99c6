"""What a logged query or feedback becomes when it is sent again.

Rules of this file:
- Only the query id changes: partition, key, headers and the bytes of every other field stay as they were logged. Only
  when a feedback was said first is left out: it is said again now.
- A new id is a function of the run and of the id under which the query was answered, so feedback names its query again.
- Feedback is sent about queries of this run alone: the target would wait for any other.
- A marker of a restore is never sent: it would set the weights of another deployment back.
"""

from collections.abc import Collection
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
import xxhash

from clipper_agents.dead_letters.reader import REPLAYED_FROM
from clipper_agents.kafka.reader import Record
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import JSON, MSGPACK, content_type
from clipper_topics.feedback import FORWARDED
from clipper_topics.query import ID_CHARACTERS
from clipper_topics.query_ids import answered_id
from clipper_topics.restore import restore_id_of

LeftOut: TypeAlias = Literal["unreadable", "other_application", "restore_marker", "no_query"]
"""Why a record is not sent: its id cannot be read, it is of an application that was not chosen, it is a marker, or its
query was not sent before it."""
REMEMBERED = 1_000_000
"""Queries that are remembered at least, twice as many at most: some 140 MB."""


class ResentRecord(NamedTuple):
    """A record to send."""

    topic: str
    value: bytes
    key: bytes | None
    partition: int
    headers: list[tuple[str, bytes | None]]


class _Names(msgspec.Struct):
    query_id: str | None = None
    application: str | None = None


_FORMATS: dict[str, tuple[Any, Any, Any]] = {
    kind: (form.Decoder(_Names), form.Decoder(dict[str, msgspec.Raw]), form.encode)
    for kind, form in ((JSON, msgspec.json), (MSGPACK, msgspec.msgpack))
}
"""By content type: decoders of what is looked at and of all fields as they are written, and the encoder."""


def new_id(query_id: str, run: str) -> str:
    """Return the id under which a run sends a query; a digest stands in it for an id that is too long to be extended.

    >>> new_id("3@41", "r1"), len(new_id("x" * 1_000, "r1"))
    ('3@41~r1', 37)
    """
    extended = f"{query_id}~{run}"
    if len(extended) <= ID_CHARACTERS:
        return extended
    return f"{xxhash.xxh3_128_hexdigest(query_id.encode())}~d.{run}"


class RecordResender:
    """Makes copies of records, in the order of the log, for a target with as many partitions.

    New ids end with the name of the run, which has no `~`. Without applications records of all are sent.
    """

    def __init__(
        self,
        source: Catalogue,
        target: Catalogue,
        run: str,
        applications: Collection[str] = (),
        remembered: int = REMEMBERED,
    ) -> None:
        self._topics = {source.queries: target.queries, source.feedback: target.feedback}
        self._queries, self._run, self._applications = source.queries, run, applications
        self._remembered = remembered
        self._newer, self._older = set[int](), set[int]()

    def copy(self, record: Record) -> ResentRecord | LeftOut:
        """Return the record to send, or why none is sent."""
        is_query = record.topic == self._queries
        if not is_query and restore_id_of(record.headers) is not None:
            return "restore_marker"
        try:
            decode_names, decode_fields, encode = _FORMATS[content_type(record.headers)]
            names, fields = decode_names.decode(record.value or b""), decode_fields.decode(record.value)
        except (KeyError, ValueError, RecursionError):
            return "unreadable"
        if self._applications and (is_query or names.application) and names.application not in self._applications:
            return "other_application"
        query_id = answered_id(names.query_id, record.partition, record.offset) if is_query else names.query_id or ""
        query = hash((record.partition, query_id))
        if is_query:
            self._remember(query)
        elif query not in self._newer and query not in self._older:
            return "no_query"
        place = f"{record.topic}/{record.partition}/{record.offset}".encode()
        kept = (one for one in record.headers if one[0] not in {REPLAYED_FROM, FORWARDED})
        headers: list[tuple[str, bytes | None]] = [*kept, (REPLAYED_FROM, place)]
        value = encode(fields | {"query_id": new_id(query_id, self._run)})
        return ResentRecord(self._topics[record.topic], value, record.key, record.partition, headers)

    def _remember(self, query: int) -> None:
        if len(self._newer) >= self._remembered:
            self._older, self._newer = self._newer, set()
        self._newer.add(query)
