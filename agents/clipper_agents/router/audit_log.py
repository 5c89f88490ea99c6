"""Sends audits: what models said that were asked for the log only, one record for each prediction with `audited: true`.

Rules of this file:
- An audit is sent when its prediction is in the log, so that no audit stands in the log without a prediction.
- A query with an audit is acknowledged when its audit is in the log and indexed. A query that is read again, and whose
  audit is not there, was answered by a process that ended in between: its audit is written at once, with all missing.
- An audit belongs to one record of a query: it is indexed by the record's offset and the query's id (`audit_key`).
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from aiokafka import TopicPartition

from clipper_agents.kafka.reader import LogReader
from clipper_agents.router.decision_index import LogIndex
from clipper_agents.router.indexed_log import IndexedLog
from clipper_agents.router.outgoing_records import Outgoing, Sendable
from clipper_agents.router.prediction_records import encode_audit
from clipper_agents.router.query_consumer import QueryConsumer
from clipper_agents.router.query_traces import UNTRACED, QueryTraces
from clipper_agents.streaming.app import TaskRunner
from clipper_agents.streaming.outbox import Outbox
from clipper_stream.query import DecodedQuery, InFlightQuery, QueryAnswer
from clipper_stream.query.status import Status
from clipper_topics.logged_records import audit_key, read_audit


class Auditing(Protocol):
    """What the router knows of audits in flight: a `Router`."""

    def is_audited(self, query: DecodedQuery) -> bool:
        """Return whether the query has an audit in flight."""
        ...

    def audit_recorded(self, query: DecodedQuery) -> None:
        """Note that the audit of the query is in the log."""
        ...

    def lost_audit(self, query: DecodedQuery, answered: Iterable[str], now_s: float) -> QueryAnswer:
        """Begin the audit of a query that another process answered and did not live to audit."""
        ...


class AuditLog:
    """Sends, indexes and acknowledges audits.

    Args:
        outbox: Sends.
        reader: Reads what others wrote.
        topic: The audits topic.
        index: Of the audits.
        consumer: Acknowledges queries.
        auditing: Knows which audits are in flight.
        tasks: Runs the rounds.
        traces: Makes the spans of sampled queries.
    """

    read = staticmethod(read_audit)

    def __init__(
        self,
        outbox: Outbox,
        reader: LogReader,
        topic: str,
        index: LogIndex,
        consumer: QueryConsumer,
        auditing: Auditing,
        tasks: TaskRunner,
        traces: QueryTraces = UNTRACED,
    ) -> None:
        self.topic = topic
        self._auditing, self._consumer, self._traces = auditing, consumer, traces
        self.log = IndexedLog(outbox, reader, self, index, consumer, tasks)
        self._early: dict[InFlightQuery, QueryAnswer] = {}
        """Audits that were complete before the prediction of their query was in the log, by query."""

    def key(self, query: DecodedQuery) -> str:
        """The key of the audit of a query."""
        return audit_key(query.query_id, query.offset)

    def put(self, audits: Sequence[QueryAnswer]) -> None:
        """Send audits, each as soon as its prediction is in the log."""
        ready = []
        for audit in audits:
            query = audit.pending.audit_of
            if query is not None and query.status[0] != Status.RECORDED:
                self._early[query] = audit
            else:
                ready.append(audit)
        self._send(ready)

    def follow(self, query: InFlightQuery) -> None:
        """Send the audit of a query whose prediction is in the log, if it is complete."""
        audit = self._early.pop(query, None)
        if audit is not None:
            self._send([audit])

    def owed(self, query: DecodedQuery, answered: Callable[[], Iterable[str]]) -> bool:
        """Return whether a query that was read again waits for its audit; send the audit if nobody else will.

        Args:
            query: The query, whose prediction is in the log and says that an audit follows.
            answered: Gives the references of the models that the prediction names.
        """
        if self._auditing.is_audited(query):
            return True
        (known,) = self.log.index.of(query.partition).find([audit_key(query.query_id, query.offset)])
        if known is None:
            self._send([self._auditing.lost_audit(query, answered(), time.time())])
        return known is None

    async def restore(
        self, since_ms: Mapping[int, int], ends: Mapping[TopicPartition, int], unread_ms: Mapping[int, int]
    ) -> int:
        """Restore as `IndexedLog.restore` does, and forget audits of the generation before."""
        self._early.clear()
        return await self.log.restore(since_ms, ends, unread_ms)

    def _send(self, audits: Iterable[QueryAnswer]) -> None:
        self.log.add([Outgoing(one.query, encode_audit(one), one.query.content_type, one) for one in audits])

    def round_ended(self, outgoing: list[Sendable], offsets: list[int], took_s: float) -> None:
        """Trace the audits of a round; nobody waits for them."""
        self._traces.audited(self.topic, outgoing, offsets, took_s)

    def written(self, partition: int, outgoing: list[Sendable], generation: int, *, alone: bool) -> None:  # noqa: ARG002
        """Acknowledge the queries of audits that are in the log."""
        offsets: list[int] = []
        for one in outgoing:
            assert isinstance(one, Outgoing)  # audits are in no block
            query, _, _, audit = one
            assert audit is not None  # audits are never repeated
            offsets.append(query.offset)
            audit.pending.move(Status.RECORDED, Status.ACKNOWLEDGED)
            if (audited := audit.pending.audit_of) is not None:
                audited.move(Status.ACKNOWLEDGED)
                audited.audit = None  # break the cycle, so that both are freed at once
            self._auditing.audit_recorded(query)
        self._consumer.acknowledge(partition, offsets, generation)
