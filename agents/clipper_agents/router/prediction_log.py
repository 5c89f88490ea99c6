"""Sends predictions: sent, acknowledged by the broker, indexed, and only then is the query acknowledged.

Rules of this file:
- The order of writes is that of `indexed_log`. Then the query is acknowledged, unless an audit of it follows: then the
  audit log acknowledges it with the audit.
- Of two predictions about a query the first is the decision, whoever wrote it. When it is of another process and says
  that an audit follows, that audit is owed as if the query had been read again.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from aiokafka import TopicPartition

from clipper_agents.kafka.reader import LogReader
from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.audit_log import AuditLog
from clipper_agents.router.clock_skew import ClockSkew
from clipper_agents.router.decision_index import LogIndex
from clipper_agents.router.indexed_log import IndexedLog
from clipper_agents.router.outgoing_records import Outgoing
from clipper_agents.router.prediction_records import encode_answers
from clipper_agents.router.query_consumer import QueryConsumer
from clipper_agents.router.query_traces import UNTRACED, QueryTraces
from clipper_agents.streaming.app import TaskRunner
from clipper_agents.streaming.outbox import Outbox
from clipper_stream.query import Answers, QueryBatch, Router
from clipper_stream.query.lifecycle import QueryState, set_state
from clipper_topics.logged_records import LoggedRecord, named_models, prediction_head, read_prediction

MEMORY_ROUNDS = 10
MOST_LEAD_S = 0.010
"""A broker that hesitates must not make the router give up on its models."""
UNKNOWN_APPLICATION = "unknown"
"""Label of all queries to applications that are not registered, lest a typo adds a metric series."""


class PredictionLog:
    """Sends, indexes and acknowledges predictions.

    Args:
        outbox: Sends.
        reader: Reads what others wrote.
        topic: The predictions topic.
        decisions: The index.
        consumer: Acknowledges queries.
        router: Is told which queries are answered, and how long before a deadline it has to answer.
        tasks: Runs the rounds.
        audits: Records audits; None where none are ever made.
        metrics: Counts answers.
        traces: Makes the spans of sampled queries.
        skew, clock: As in `IndexedLog`.
    """

    read = staticmethod(read_prediction)

    def __init__(
        self,
        outbox: Outbox,
        reader: LogReader,
        topic: str,
        decisions: LogIndex,
        consumer: QueryConsumer,
        router: Router,
        tasks: TaskRunner,
        *,
        audits: AuditLog | None = None,
        metrics: RouterMetrics | None = None,
        traces: QueryTraces = UNTRACED,
        skew: ClockSkew | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.topic = topic
        self._log = IndexedLog(outbox, reader, self, decisions, consumer, tasks, skew=skew, clock=clock)
        self._consumer, self._router, self._audits = consumer, router, audits
        self._metrics, self._traces = metrics, traces
        self._delivery_s = 0.0
        """How long the broker takes to acknowledge predictions, smoothed over about ten rounds, in seconds."""

    @staticmethod
    def keys_of(batch: QueryBatch, queries: Iterable[int]) -> list[str]:
        """Return the ids of queries."""
        return [batch.ids[query] for query in queries]

    def known(self, batch: QueryBatch) -> dict[int, LoggedRecord]:
        """Return the predictions in the log about queries of a batch, by index; note whether others share an id."""
        index = self._log.index.of(batch.partition)
        if len(index.undecided(batch.ids)) == len(batch):
            return {}
        found = index.decided([_asked(batch, query) for query in range(len(batch))])
        batch.shares_id = any(one is not None and not one.own for one in found)
        return {query: one.logged for query, one in enumerate(found) if one is not None and one.own}

    def put(self, answers: Sequence[Answers], audits: Sequence[Answers] = ()) -> None:
        """Send answers, and audits once their predictions are in the log."""
        encoded = [encode_answers(some) for some in answers]
        if self._traces.is_on and answers:
            self._traces.answered(answers)
        self._log.add(
            Outgoing(some.batch, some.entries, values, some.batch.content_type, some) for some, values in encoded
        )
        if audits:
            assert self._audits is not None
            self._audits.put(audits)

    def repeat(self, batch: QueryBatch, query: int, logged: LoggedRecord) -> None:
        """Finish a query that was answered before: the same record is acknowledged, another one answered."""
        if prediction_head(logged).query_offset != batch.offsets[query]:
            self._log.add([Outgoing(batch, [query], [logged.value], logged.content_type)])
        elif not self._owes_audit(batch, query, logged):
            self._consumer.acknowledge(batch.partition, _finish(batch, [query]), batch.generation)

    async def idle(self) -> None:
        """Wait until no record is being sent."""
        await self._log.idle()
        if self._audits is not None:
            await self._audits.log.idle()

    def unwritten(self, partition: int) -> int:
        """Number of predictions and audits of a partition that are not in the log yet."""
        audits = 0 if self._audits is None else self._audits.log.unwritten(partition)
        return self._log.unwritten(partition) + audits

    async def restore(
        self, since_ms: Mapping[int, int], ends: Mapping[TopicPartition, int], unread_ms: Mapping[int, int]
    ) -> int:
        """Restore both logs as `IndexedLog.restore` does; return the number of predictions read."""
        count = await self._log.restore(since_ms, ends, unread_ms)
        if self._audits is not None:
            await self._audits.restore(since_ms, ends, unread_ms)
        return count

    async def catch_up(self, partitions: Iterable[int]) -> None:
        """Index the parts of both logs behind their indexes: predictions first, because audits follow them."""
        await self._log.catch_up(partitions)
        if self._audits is not None:
            await self._audits.log.catch_up(partitions)

    def round_ended(self, outgoing: list[Outgoing], offsets: list[int], took_s: float) -> None:
        """Count the answers of a round, and keep the router's lead to what the broker takes."""
        if self._traces.is_on:
            self._traces.recorded(self.topic, outgoing, offsets)
        self._router.lead_s = min(MOST_LEAD_S, 2 * self._delivery_s)  # to the broker, and from there to be read
        self._delivery_s += (took_s - self._delivery_s) / MEMORY_ROUNDS
        answered = [one.answers for one in outgoing if one.answers is not None]
        if self._metrics is not None and answered:
            _count_answers(self._metrics, answered, took_s)

    def written(self, partition: int, outgoing: list[Outgoing], generation: int, *, alone: bool) -> None:
        """Acknowledge the queries of logged predictions, except those whose audit follows."""
        done: list[int] = []
        for one in outgoing:
            done += _finish(one.batch, one.entries) if one.answers is None else self._end(one, alone=alone)
        self._consumer.acknowledge(partition, done, generation)

    def _end(self, one: Outgoing, *, alone: bool) -> list[int]:
        """End queries whose predictions are in the log; return the offsets that are finished."""
        batch, finished = one.batch, list[int]()
        again = self._router.recorded(batch, one.entries)
        for query in one.entries:
            if query in batch.audit:
                assert self._audits is not None
                self._audits.follow(batch, query)
            elif alone or not self._owes_another(batch, query):
                finished.append(query)
        done = _finish(batch, finished)
        if again:
            places = {batch.ids[query]: place for place, query in enumerate(one.entries)}
            for other, query in again:
                done += self._end_repetition(one, places[other.ids[query]], other, query)
        return done

    def _end_repetition(self, one: Outgoing, place: int, other: QueryBatch, query: int) -> list[int]:
        """End a query that was read again while it was in flight; return its offset where it is finished."""
        if other.offsets[query] != one.batch.offsets[one.entries[place]]:
            self._log.add([Outgoing(other, [query], [one.values[place]], one.content_type)])
            return []
        return [] if one.entries[place] in one.batch.audit else _finish(other, [query])

    def _owes_audit(self, batch: QueryBatch, query: int, logged: LoggedRecord) -> bool:
        audits = self._audits if logged.audited else None
        return audits is not None and audits.owed(batch, query, lambda: named_models(logged))

    def _owes_another(self, batch: QueryBatch, query: int) -> bool:
        """Return whether another process's prediction about the query came first and its audit is missing."""
        (known,) = self._log.index.of(batch.partition).decided([_asked(batch, query)])
        if known is None or not known.own or prediction_head(known.logged).query_offset != batch.offsets[query]:
            return False
        return self._owes_audit(batch, query, known.logged)


def _finish(batch: QueryBatch, queries: Sequence[int]) -> list[int]:
    """Return the offsets of queries that are to be acknowledged."""
    set_state(batch.states, queries, QueryState.ACKNOWLEDGED)
    return [batch.offsets[query] for query in queries]


def _asked(batch: QueryBatch, query: int) -> tuple[str, str, float]:
    return batch.ids[query], batch.application, batch.queried_at_s[query] * 1000


def _count_answers(metrics: RouterMetrics, answered: Iterable[Answers], recorded_s: float) -> None:
    waited_s, took_s = list[float](), list[float]()
    latencies_s = defaultdict[tuple[str, str | None, float | None], list[float]](list)
    for batch, entries, decided_s, _, _, failures in answered:
        name, objective_s = UNKNOWN_APPLICATION, None
        if batch.is_registered:
            name, objective_s = batch.application, batch.manifest.objective_s
        for query in entries:
            queried_s = batch.queried_at_s[query]
            asked_s = decided_s if batch.decision_of(query) is None else batch.asked_at_s
            waited_s.append(asked_s - queried_s)
            took_s.append(decided_s - asked_s)
            reason = failures[query].reason if query in failures else None
            latencies_s[name, reason, objective_s].append(max(0.0, decided_s - queried_s))
    metrics.observe_stages(waited_s, took_s, recorded_s)
    for (name, reason, objective_s), found_s in latencies_s.items():
        metrics.observe_predictions(name, "default" if reason else "model", reason, found_s, objective_s)
