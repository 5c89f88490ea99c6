"""Sends predictions: sent, acknowledged by the broker, indexed, and only then is the query acknowledged.

Rules of this file:
- The order of writes is that of `indexed_log`. Then the query is acknowledged, unless an audit of it follows: then the
  audit log acknowledges it with the audit.
- Of two predictions about a query the first is the decision, whoever wrote it. When it is of another process and says
  that an audit follows, that audit is owed as if the query had been read again.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter, sub
from typing import Protocol

from aiokafka import TopicPartition

from clipper_agents.kafka.reader import LogReader
from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.audit_log import AuditLog
from clipper_agents.router.clock_skew import ClockSkew
from clipper_agents.router.decision_index import LogIndex
from clipper_agents.router.indexed_log import IndexedLog
from clipper_agents.router.outgoing_records import Outgoing, OutgoingBlock, Sendable
from clipper_agents.router.prediction_records import encode_answer, encode_block
from clipper_agents.router.query_consumer import QueryConsumer
from clipper_agents.router.query_traces import UNTRACED, QueryTraces
from clipper_agents.streaming.app import TaskRunner
from clipper_agents.streaming.outbox import Outbox
from clipper_stream.query import BlockAnswers, DecodedQuery, InFlightQuery, QueryAnswer
from clipper_stream.query.answer import answers_of
from clipper_stream.query.status import Status
from clipper_topics.logged_records import LoggedRecord, named_models, prediction_head, read_prediction

MEMORY_ROUNDS = 10
MOST_LEAD_S = 0.010
"""A broker that hesitates must not make the router give up on its models."""
UNKNOWN_APPLICATION = "unknown"
"""Label of all queries to applications that are not registered, lest a typo adds a metric series."""

_application_and_failure = attrgetter("application", "failure")


class AnsweredQueries(Protocol):
    """Is told about answered queries: a `Router`."""

    lead_s: float

    def recorded(self, query: DecodedQuery, /) -> Sequence[DecodedQuery]:
        """Note that the query's prediction is in the log, and return repetitions of the query read meanwhile."""
        ...

    def block_recorded(self, answers: BlockAnswers, /) -> Sequence[DecodedQuery]:
        """Note the same of queries of a block."""
        ...


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

    key = attrgetter("query_id")
    read = staticmethod(read_prediction)

    def __init__(
        self,
        outbox: Outbox,
        reader: LogReader,
        topic: str,
        decisions: LogIndex,
        consumer: QueryConsumer,
        router: AnsweredQueries,
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

    def put(
        self,
        answers: Sequence[QueryAnswer],
        audits: Sequence[QueryAnswer] = (),
        blocks: Sequence[BlockAnswers] = (),
    ) -> None:
        """Send answers, and audits once their predictions are in the log."""
        outgoing = list[Sendable]()
        for some in blocks:
            values = encode_block(some)
            if values is None:
                answers = [*answers, *answers_of(some)]
            else:
                outgoing.append(OutgoingBlock(some, values))
        outgoing += (
            Outgoing(answer.pending.query, value, answer.pending.query.content_type, answer)
            for answer, value in map(encode_answer, answers)
        )
        if self._traces.is_on and outgoing:
            self._traces.answered(answers, blocks)
        self._log.add(outgoing)
        if audits:
            assert self._audits is not None
            self._audits.put(audits)

    def repeat(self, query: DecodedQuery, logged: LoggedRecord) -> None:
        """Finish a query that was answered before: the same record is acknowledged, another one answered."""
        if prediction_head(logged).query_offset != query.offset:
            self._log.add([Outgoing(query, logged.value, logged.content_type)])
        elif not self._owes_audit(query, logged):
            self._consumer.acknowledge(query.partition, [query.offset], query.generation)

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

    def round_ended(self, outgoing: list[Sendable], offsets: list[int], took_s: float) -> None:
        """Count the answers of a round, and keep the router's lead to what the broker takes."""
        if self._traces.is_on:
            self._traces.recorded(self.topic, outgoing, offsets)
        self._router.lead_s = min(MOST_LEAD_S, 2 * self._delivery_s)  # to the broker, and from there to be read
        self._delivery_s += (took_s - self._delivery_s) / MEMORY_ROUNDS
        if self._metrics is not None:
            for one in outgoing:
                if isinstance(one, OutgoingBlock):
                    _count_block(self._metrics, one.answers, took_s)
            alone = [one.answer for one in outgoing if isinstance(one, Outgoing) and one.answer is not None]
            if alone:
                _count_answers(self._metrics, alone, took_s)

    def written(self, partition: int, outgoing: list[Sendable], generation: int, *, alone: bool) -> None:
        """Acknowledge the queries of logged predictions, except those whose audit follows."""
        done: list[int] = []
        for one in outgoing:
            done += self._end(one, alone=alone) if isinstance(one, Outgoing) else self._end_block(one, alone=alone)
        self._consumer.acknowledge(partition, done, generation)

    def _end(self, one: Outgoing, *, alone: bool) -> list[int]:
        """End a query whose prediction is in the log; return the offsets that are finished."""
        query, value, kind, answer = one
        if answer is None:
            return [query.offset]
        pending, done = answer.pending, list[int]()
        if pending.audit is not None:
            pending.move(Status.RECORDED)
            self._follow(pending)
        else:
            pending.move(Status.RECORDED, Status.ACKNOWLEDGED)
            if alone or not self._owes_another(query):
                done.append(query.offset)
        for again in self._router.recorded(query):
            if again.offset != query.offset:
                self._log.add([Outgoing(again, value, kind)])
            elif pending.audit is None:
                done.append(again.offset)
        return done

    def _end_block(self, one: OutgoingBlock, *, alone: bool) -> list[int]:
        """Do the same for queries of a block."""
        answers, queries = one.answers, one.answers.block.queries
        ids, offsets = queries.query_ids, queries.offsets
        done = [offsets[index] for index in answers.indices if alone or not self._owes_another(queries.query(index))]
        again = self._router.block_recorded(answers)
        if again:
            own = {offsets[index] for index in answers.indices}
            values = dict(zip([ids[index] for index in answers.indices], one.values, strict=True))
            done += (query.offset for query in again if query.offset in own)
            others = (query for query in again if query.offset not in own)
            self._log.add(Outgoing(query, values[query.query_id], queries.content_type) for query in others)
        return done

    def _follow(self, pending: InFlightQuery) -> None:
        assert self._audits is not None
        self._audits.follow(pending)

    def _owes_audit(self, query: DecodedQuery, logged: LoggedRecord) -> bool:
        return logged.audited and self._audits is not None and self._audits.owed(query, lambda: named_models(logged))

    def _owes_another(self, query: DecodedQuery) -> bool:
        """Return whether another process's prediction about the query came first and its audit is missing."""
        asked = (query.query_id, query.application, query.queried_at_s * 1000)
        (known,) = self._log.index.of(query.partition).decided([asked])
        if known is None or not known.own or prediction_head(known.logged).query_offset != query.offset:
            return False
        return self._owes_audit(query, known.logged)


def _count_answers(metrics: RouterMetrics, answers: list[QueryAnswer], recorded_s: float) -> None:
    decided_s = [answer.decided_at_s for answer in answers]
    asked_s = [answer.pending.asked_at_s or answer.decided_at_s for answer in answers]
    queried_s = [answer.pending.query.queried_at_s for answer in answers]
    metrics.observe_stages([*map(sub, asked_s, queried_s)], [*map(sub, decided_s, asked_s)], recorded_s)
    for (application, failure), group in groupby(answers, key=_application_and_failure):
        latencies_s = [max(0.0, answer.decided_at_s - answer.pending.query.queried_at_s) for answer in group]
        name = application.name if application else UNKNOWN_APPLICATION
        reason = None if failure is None else failure.reason
        objective_s = application.objective_s if application else None
        metrics.observe_predictions(name, "default" if reason else "model", reason, latencies_s, objective_s)


def _count_block(metrics: RouterMetrics, answers: BlockAnswers, recorded_s: float) -> None:
    block, indices, decided_s, _, refusals = answers
    queried_s = [block.queries.queried_at_s[index] for index in indices]
    asked_s, reason = block.asked_at_s or decided_s, refusals[0].reason if refusals else None
    metrics.observe_stages([asked_s - at_s for at_s in queried_s], [decided_s - asked_s] * len(indices), recorded_s)
    latencies_s = [max(0.0, decided_s - at_s) for at_s in queried_s]
    one = block.application
    metrics.observe_predictions(one.name, "default" if reason else "model", reason, latencies_s, one.objective_s)
