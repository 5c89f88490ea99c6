"""Audits go out here: what was asked for the log only, one record for each prediction with `audited: true`.

Rules of this file:
- An audit is sent when its prediction is in the log, so that none stands there without one.
- A query with an audit is acknowledged when its audit is in the log and indexed. A query that is read again, and whose
  audit is not there, was answered by a process that ended in between: its audit is written at once, with all missing.
- An audit belongs to one record of a query: it is indexed under the record's offset and the query's id.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from aiokafka import ConsumerRecord

from clipper_agents.kafka.reader import LogReader
from clipper_agents.router.decision_index import Decisions, Logged
from clipper_agents.router.indexed_log import IndexedLog, Outgoing
from clipper_agents.router.prediction_records import encode_audit
from clipper_agents.streaming.outbox import Outbox
from clipper_stream.query import Answer, Pending, Received
from clipper_stream.query.lifecycle import Event, State, Way
from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.codec import UndecodableRecord, content_type

RECORDED, ACKNOWLEDGED = Way(Event.RECORD, Event.ACKNOWLEDGE), Way(Event.ACKNOWLEDGE)


def audit_key(query_id: str, query_offset: int) -> str:
    """Under which the audit of a record of a query is indexed.

    >>> audit_key("order 7", 41)
    '41 order 7'
    """
    return f"{query_offset} {query_id}"


class AuditRecords:
    """Records of the audits topic."""

    def __init__(self, topic: str) -> None:
        self.topic = topic

    def key(self, query: Received) -> str:
        """Of the record about a query."""
        return audit_key(query.query_id, query.offset)

    def read(self, record: ConsumerRecord[Any, Any]) -> tuple[str, Logged] | None:
        """Read wholly, so that what is indexed can be learned from; None for a record that is no audit."""
        logged = Logged(record.offset, record.value or b"", content_type(record.headers) == codec.MSGPACK)
        try:
            audit = decode_audit(logged)
        except UndecodableRecord:
            return None
        return audit_key(audit.query_id, audit.query_offset), logged


def decode_audit(logged: Logged) -> Audit:
    """The audit as it stands in the log.

    Raises:
        UndecodableRecord: it is none.
    """
    return codec.audits.decode(logged.value, codec.MSGPACK_HEADERS if logged.msgpack else ())


class Auditing(Protocol):
    """What the router knows of audits under way."""

    def is_audited(self, query: Received) -> bool:
        """Whether one of the query is."""
        ...

    def audit_recorded(self, query: Received) -> None:
        """It is no more."""
        ...

    def unheard(self, query: Received, answered: Iterable[str], now_s: float) -> Answer:
        """The audit of a query that another process answered; it is under way from now on."""
        ...


class AuditRecorder:
    """Sends, indexes and acknowledges audits.

    Args:
        outbox: Sends.
        reader: Reads what others wrote.
        topic: The audits topic.
        index: Of the audits.
        auditing: Knows which audits are under way.
        generation: The consumer's generation now.
        acknowledge: Called with partition, offsets and generation when queries are finished.
    """

    def __init__(
        self,
        outbox: Outbox,
        reader: LogReader,
        topic: str,
        index: Decisions,
        auditing: Auditing,
        *,
        generation: Callable[[], int],
        acknowledge: Callable[[int, list[int], int], None],
    ) -> None:
        self._auditing, self._acknowledge = auditing, acknowledge
        self.log = IndexedLog(outbox, reader, AuditRecords(topic), index, generation=generation, done=self._conclude)
        self._early: dict[Pending, Answer] = {}
        """By query: audits that were complete before its prediction was in the log."""

    def put(self, audits: Sequence[Answer]) -> None:
        """Record these audits, each as soon as its prediction is in the log."""
        ready = []
        for audit in audits:
            query = audit.pending.audit_of
            if query is not None and query.state is not State.RECORDED:
                self._early[query] = audit
            else:
                ready.append(audit)
        self._send(ready)

    def follow(self, query: Pending) -> None:
        """The query's prediction is in the log."""
        audit = self._early.pop(query, None)
        if audit is not None:
            self._send([audit])

    def owed(self, query: Received, answered: Callable[[], Iterable[str]]) -> bool:
        """Whether a query that was read again has to wait for its audit; one that nobody will write is written now.

        Args:
            query: The query, whose prediction is in the log and says that an audit follows.
            answered: Gives the references of the models that the prediction names.
        """
        if self._auditing.is_audited(query):
            return True
        (known,) = self.log.index.of(query.partition).find([audit_key(query.query_id, query.offset)])
        if known is None:
            self._send([self._auditing.unheard(query, answered(), time.time())])
        return known is None

    async def restore(self, partitions: Iterable[int], horizon_s: float) -> int:
        """As `IndexedLog.restore`; what is left of the generation before is forgotten."""
        self._early.clear()
        return await self.log.restore(partitions, horizon_s)

    def _send(self, audits: Iterable[Answer]) -> None:
        self.log.add([Outgoing(one.query, encode_audit(one), one.query.content_type, one) for one in audits])

    def _conclude(self, partition: int, outgoing: list[Outgoing], generation: int, *, alone: bool) -> None:  # noqa: ARG002
        for query, _, _, audit in outgoing:
            assert audit is not None  # audits are never repeated
            audit.pending.move(RECORDED)
            if (asked := audit.pending.audit_of) is not None:
                asked.move(ACKNOWLEDGED)
                asked.audit = None  # the two know each other no more, so that they are freed at once
            self._auditing.audit_recorded(query)
        self._acknowledge(partition, [one.query.offset for one in outgoing], generation)
