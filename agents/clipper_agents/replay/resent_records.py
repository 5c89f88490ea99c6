"""What a logged query or feedback becomes when it is sent again: its topic, partition, key, value and headers.

Rules of this file:
- Only the query's id is ever changed; every other byte of a field stays as it was logged.
- A query without an id gets the one that it was answered under, so that its feedback still names it.
- Feedback goes to the partition that its query was sent to. Beside queries only feedback about them is sent; feedback
  alone keeps its ids.
- A marker of a restore is never sent: it would set the weights of another deployment back.
- Memory is bounded: the last `REMEMBERED` queries are known, and feedback about older ones is left out.
"""

import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
from aiokafka import ConsumerRecord

from clipper_agents.dead_letters.reader import REPLAYED_FROM
from clipper_agents.replay.run_ids import Ids
from clipper_stream.client.keys import partition_for
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import JSON, MSGPACK, content_type
from clipper_topics.query_ids import answered_id
from clipper_topics.restore import restore_id_of

Record: TypeAlias = ConsumerRecord[Any, Any]
LeftOut: TypeAlias = Literal["empty", "restore_marker", "other_application", "unreadable", "no_query", "no_key"]
"""Why a record is not sent: neither key nor value, which aiokafka does not send; a marker; not of the applications that
were chosen; of those nothing can be read; feedback about a query that this run did not send; feedback without a key
where keys say the partition."""
REMEMBERED = 1_000_000
"""Queries: about 100 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResentRecord:
    """A record to send.

    Attributes:
        topic: The target's topic.
        partition: Partition of that topic.
        key: The logged key.
        value: The logged value, with the new query id.
        headers: The logged headers, and one with the place of the logged record.
    """

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """Id and application of a record, and all its fields as bytes of its own encoding."""

    query_id: str | None
    application: str | None
    fields: dict[str, Any]


class _Protocol(NamedTuple):
    fields: Any
    text: Any
    encode: Any


_Fields: TypeAlias = dict[str, msgspec.Raw]
_Text: TypeAlias = str | None
_PROTOCOLS = {
    JSON: _Protocol(msgspec.json.Decoder(_Fields), msgspec.json.Decoder(_Text), msgspec.json.encode),
    MSGPACK: _Protocol(msgspec.msgpack.Decoder(_Fields), msgspec.msgpack.Decoder(_Text), msgspec.msgpack.encode),
}


class SentQueries:
    """Target partitions of the last queries, by their old partition, id and application.

    >>> sent = SentQueries(most=4)
    >>> sent.note(0, "a", "digits", 1)
    >>> sent.partition_of(0, "a", "digits"), sent.partition_of(0, "a", None), sent.partition_of(1, "a", None)
    (1, 1, None)

    Args:
        most: Most queries to remember; at least half as many are remembered.
    """

    def __init__(self, most: int = REMEMBERED) -> None:
        self._half = max(1, most // 2)
        self._young: dict[int, tuple[str | None, int]] = {}
        self._old: dict[int, tuple[str | None, int]] = {}

    def note(self, partition: int, query_id: str, application: str | None, sent_to: int) -> None:
        """Note that a query of this partition was sent to another one."""
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        name = None if application is None else sys.intern(application)
        first = self._get(partition, query_id)
        shared = first is not None and first[0] != name
        self._young[hash((partition, query_id, name) if shared else (partition, query_id))] = name, sent_to

    def partition_of(self, partition: int, query_id: str, application: str | None) -> int | None:
        """Return the partition to which a query was sent; None if it was not sent, or is forgotten.

        Args:
            partition: Where the query was.
            query_id: Its id.
            application: Its application; None: the first query under the id is meant.
        """
        found = self._get(partition, query_id)
        if found is not None and application is not None and found[0] != application:
            found = self._get(partition, query_id, application)
        return None if found is None else found[1]

    def _get(self, *place: int | str | None) -> tuple[str | None, int] | None:
        key = hash(place)
        found = self._young.get(key)
        return self._old.get(key) if found is None else found


class RecordResender:
    """Makes copies of records, in the order of the log.

    Args:
        source: The topics that are read.
        target: The topics that are written; `partitions` of both say whether partitions are kept.
        ids: Makes the query id of the copy.
        applications: Applications to send; empty: all.
        queries: Send queries.
        feedback: Send feedback.
        sent: Remembers the queries that were sent.
    """

    def __init__(
        self,
        source: Catalogue,
        target: Catalogue,
        ids: Ids,
        *,
        applications: Collection[str] = (),
        queries: bool = True,
        feedback: bool = True,
        sent: SentQueries | None = None,
    ) -> None:
        self._source, self._target, self._ids = source, target, ids
        self._applications, self._both = frozenset(applications), queries and feedback
        self._sent = SentQueries() if sent is None else sent

    def copy(self, record: Record) -> ResentRecord | LeftOut:
        """Return the record to send, or why none is sent."""
        if record.key is None and record.value is None:
            return "empty"
        return self._query(record) if record.topic == self._source.queries else self._feedback(record)

    def _query(self, record: Record) -> ResentRecord | LeftOut:
        said = _read(record)
        wrong = self._unwanted(said)
        if wrong is not None:
            return wrong
        old = answered_id(None if said is None else said.query_id, record.partition, record.offset)
        partition = self._kept(record, old.encode("utf-8", "surrogatepass"))
        if self._both:
            self._sent.note(record.partition, old, None if said is None else said.application, partition)
        return self._copied(record, self._target.queries, partition, said, self._ids(old))

    def _feedback(self, record: Record) -> ResentRecord | LeftOut:
        if restore_id_of(record.headers) is not None:
            return "restore_marker"
        said = _read(record)
        partition = self._partition_of_query(record, said)
        if isinstance(partition, str):
            return partition
        new = self._ids(said.query_id) if self._both and said is not None and said.query_id else None
        return self._copied(record, self._target.feedback, partition, said, new)

    def _unwanted(self, said: _Said | None) -> LeftOut | None:
        if not self._applications:
            return None
        if said is None:
            return "unreadable"
        return None if said.application in self._applications else "other_application"

    def _partition_of_query(self, record: Record, said: _Said | None) -> int | LeftOut:
        if said is None or not self._both:
            wrong = self._unwanted(said)
            if wrong is not None:
                return wrong
            kept = self._source.partitions == self._target.partitions
            return self._kept(record, b"") if kept or record.key is not None else "no_key"
        found = self._sent.partition_of(record.partition, said.query_id or "", said.application)
        return "no_query" if found is None else found

    def _kept(self, record: Record, key: bytes) -> int:
        """Return the logged partition if both topics have as many, else that of the key or of its substitute."""
        if self._source.partitions == self._target.partitions:
            return int(record.partition)
        return partition_for(key if record.key is None else record.key, self._target.partitions)

    def _copied(
        self, record: Record, topic: str, partition: int, said: _Said | None, query_id: str | None
    ) -> ResentRecord:
        value = record.value
        if said is not None and query_id is not None and query_id != said.query_id:
            value = _with_id(record, said, query_id)
        place = f"{record.topic}/{record.partition}/{record.offset}".encode()
        headers = [(name, content) for name, content in record.headers if name != REPLAYED_FROM]
        return ResentRecord(
            topic=topic, partition=partition, key=record.key, value=value, headers=[*headers, (REPLAYED_FROM, place)]
        )


def _read(record: Record) -> _Said | None:
    """Return id, application and fields of a record; None for an unreadable one, which can only be sent unchanged."""
    protocol = _PROTOCOLS.get(content_type(record.headers))
    if protocol is None or not record.value:
        return None
    try:
        fields = protocol.fields.decode(record.value)
        texts = {name: protocol.text.decode(fields[name]) for name in ("query_id", "application") if name in fields}
    except (ValueError, RecursionError):
        return None
    return _Said(query_id=texts.get("query_id"), application=texts.get("application"), fields=fields)


def _with_id(record: Record, said: _Said, query_id: str) -> bytes:
    """Return the value with another query id; every other field is copied byte by byte."""
    protocol = _PROTOCOLS[content_type(record.headers)]
    changed: bytes = protocol.encode(said.fields | {"query_id": query_id})
    return changed
