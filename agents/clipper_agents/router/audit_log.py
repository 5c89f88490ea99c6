"""Sends audits: what models said that were asked for the log only, one record for each prediction with `audited: true`.

Rules of this file:
- An audit is sent when its prediction is in the log, so that no audit stands in the log without a prediction.
- A query with an audit is acknowledged when its audit is in the log and indexed. A query that is read again, and whose
  audit is not there, was answered by a process that ended in between: its audit is written at once, with all missing.
- An audit belongs to one record of a query: it is indexed by the record's offset and the query's id (`audit_key`).
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from aiokafka import TopicPartition

from clipper_agents.kafka.reader import LogReader
from clipper_agents.router.decision_index import LogIndex
from clipper_agents.router.indexed_log import IndexedLog
from clipper_agents.router.outgoing_records import Outgoing
from clipper_agents.router.prediction_records import encode_audits
from clipper_agents.router.query_consumer import QueryConsumer
from clipper_agents.router.query_traces import UNTRACED, QueryTraces
from clipper_agents.router.turn import QueryTurn
from clipper_agents.streaming.app import TaskRunner
from clipper_agents.streaming.outbox import Outbox
from clipper_stream.query import Answers, QueryBatch
from clipper_stream.query.lifecycle import QueryState, set_state
from clipper_topics.logged_records import audit_key, read_audit


class AuditLog:
    """Sends, indexes and acknowledges audits.

    Args:
        outbox: Sends.
        reader: Reads what others wrote.
        topic: The audits topic.
        index: Of the audits.
        consumer: Acknowledges queries.
        turn: Knows which audits are in flight.
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
        turn: QueryTurn,
        tasks: TaskRunner,
        traces: QueryTraces = UNTRACED,
    ) -> None:
        self.topic = topic
        self._turn, self._consumer, self._traces = turn, consumer, traces
        self.log = IndexedLog(outbox, reader, self, index, consumer, tasks)
        self._early: dict[tuple[QueryBatch, int], Answers] = {}
        """Audits that were complete before the prediction of their query was in the log, by query."""

    @staticmethod
    def keys_of(batch: QueryBatch, queries: Iterable[int]) -> list[str]:
        """Return the keys of the audits of queries."""
        return [audit_key(batch.ids[query], batch.offsets[query]) for query in queries]

    def put(self, audits: Sequence[Answers]) -> None:
        """Send audits, each as soon as its prediction is in the log."""
        for some in audits:
            batch, ready = some.batch, list[int]()
            for entry in some.entries:
                query = batch.query_of(entry)
                if batch.states[query] in {QueryState.RECORDED, QueryState.KNOWN}:
                    ready.append(entry)
                else:
                    self._early[batch, query] = some._replace(entries=[entry])
            self._send(some._replace(entries=ready))

    def follow(self, batch: QueryBatch, query: int) -> None:
        """Send the audit of a query whose prediction is in the log, if it is complete."""
        audit = self._early.pop((batch, query), None)
        if audit is not None:
            self._send(audit)

    def owed(self, batch: QueryBatch, query: int, answered: Callable[[], Iterable[str]]) -> bool:
        """Return whether a query that was read again waits for its audit; send the audit if nobody else will.

        Args:
            batch: Has the query, whose prediction is in the log and says that an audit follows.
            query: Its index.
            answered: Gives the references of the models that the prediction names.
        """
        if self._turn.router.is_audited(batch.partition, batch.offsets[query]):
            return True
        (known,) = self.log.index.of(batch.partition).find(self.keys_of(batch, [query]))
        if known is None:
            self._send(self._turn.lost_audit(batch, query, {*answered()}, time.time()))
        return known is None

    async def restore(
        self, since_ms: Mapping[int, int], ends: Mapping[TopicPartition, int], unread_ms: Mapping[int, int]
    ) -> int:
        """Restore as `IndexedLog.restore` does, and forget audits of the generation before."""
        self._early.clear()
        return await self.log.restore(since_ms, ends, unread_ms)

    def _send(self, audits: Answers) -> None:
        if audits.entries:
            batch, values = audits.batch, encode_audits(audits)
            self.log.add([Outgoing(batch, audits.entries, values, batch.content_type, audits)])

    def round_ended(self, outgoing: list[Outgoing], offsets: list[int], took_s: float) -> None:
        """Trace the audits of a round; nobody waits for them."""
        self._traces.audited(self.topic, outgoing, offsets, took_s)

    def written(self, partition: int, outgoing: list[Outgoing], generation: int, *, alone: bool) -> None:  # noqa: ARG002
        """Acknowledge the queries of audits that are in the log."""
        for one in outgoing:
            batch, queries = one.batch, one.queries
            self._turn.router.audits_recorded(batch, one.entries)
            set_state(batch.states, [*one.entries, *queries], QueryState.ACKNOWLEDGED)
            self._consumer.acknowledge(partition, [batch.offsets[query] for query in queries], generation)
