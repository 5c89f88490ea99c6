"""The Faust agent `learn`: looks decisions up, waits for those that are still to come, stores what is learned, acks.

Rules of this file:
- Order of a step: dead letters; rows, position and acknowledgements, committed; rows here; applied feedback; offset.
- A step of a process that has lost its partition, and does not know it yet, is refused by Kafka.
- A feedback without a decision is an orphan only when the log's time is `EARLY_FEEDBACK_MS` behind it, every query that
  was in the log then has been answered, and the predictions topic has been read to its end. One whose decision has an
  audit waits for that likewise: a query is finished when its audit is in the log.
- Time is the log's: timestamps of the broker, and between them the time that passes, but no clock of this process.
- Decisions and audits are looked up once for each list of records, and what was missing once more after each wait.
- A marker is read once the control topic has been followed to where it ended when the marker was looked at.
- Each partition learns for itself: one that waits, for decisions or for a leader, keeps no other waiting.
- The partition's state lock is held for a whole step, so that recovery never runs beside one; after each wait the
  generation is looked at again, and a step of an older one is dropped.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from faust.types import TP

from clipper_agents.feedback.feedback_step import JoinedFeedback, Record, Step, decode_feedback, learn
from clipper_agents.feedback.restore_markers import Restored, is_marker, read_markers
from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.applications import ApplicationRegistry
from clipper_agents.router.decision_index import Asked, DecisionLookup, LogIndex
from clipper_agents.router.prediction_log import PredictionLog
from clipper_agents.router.query_traces import UNTRACED, QueryTraces
from clipper_agents.router.selection_store import SelectionStore
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.dead_letters import send_dead_letters
from clipper_agents.streaming.outbox import Record as Outgoing
from clipper_agents.streaming.partition_writer import PartitionTakenOver
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import UndecodableRecord
from clipper_topics.feedback import EARLY_FEEDBACK_MS, FORWARDED, Feedback
from clipper_topics.query_ids import partition_of
from clipper_topics.restore import restore_id_of

logger = logging.getLogger(__name__)

FORWARDED_BYTES = 512 * 1024
"""Largest record that is forwarded: one near the broker's limit would be refused with one header more, for ever."""
LOOK_AGAIN_S = 0.05
TAKEN_OVER_S = 20.0
"""Longer than a member that was frozen needs to hear that it has lost its partitions."""
LOOKS = 4
"""Some ten seconds apart, so longer than a broker that was deposed takes to know it."""
FEEDBACK_A_STEP = 2_000
"""In a backlog a step's transaction, of some ten milliseconds, is shared by so many."""
FEEDBACK_A_TURN = 250  # folded in some fifteen milliseconds, then answers have their turn, and another partition


class FeedbackProcessor:
    """Applies feedback of the partitions that this process owns.

    Args:
        app: Has the generation, the state lock, and what reads and sends.
        catalogue: Names the topics.
        registry: Knows applications and declared restores.
        selection: The rows to learn in.
        decisions: Index of the predictions.
        audits: Index of the audits.
        prediction_log: Reads predictions and audits of other processes into their indexes.
        metrics: Counts outcomes.
        followed_upto: Gives the offset up to which the registry has read the control topic.
        passed: Seconds since any moment.
        traces: Makes the spans of sampled feedback.
    """

    def __init__(
        self,
        app: ClipperApp,
        catalogue: Catalogue,
        registry: ApplicationRegistry,
        selection: SelectionStore,
        decisions: LogIndex,
        audits: LogIndex,
        prediction_log: PredictionLog,
        metrics: RouterMetrics,
        followed_upto: Callable[[], int],
        passed: Callable[[], float] = time.monotonic,
        traces: QueryTraces = UNTRACED,
    ) -> None:
        self._app, self._catalogue, self._registry = app, catalogue, registry
        self._selection, self._decisions, self._audits = selection, decisions, audits
        self._prediction_log, self._metrics = prediction_log, metrics
        self._followed_upto, self._passed, self._traces = followed_upto, passed, traces
        self._turn = asyncio.Lock()
        self._all_read: dict[int, deque[float]] = {}
        """By partition, the time of the newest prediction at each look that found nothing unread."""
        self._ahead_s: dict[int, float] = {}
        """By partition, how much the log's time is ahead of `passed`, at the least."""

    async def serve(self, stream: Any) -> None:
        """Learn until the process stops, in each partition for itself."""

        async def serve(tp: TP, records: list[Record], generation: int) -> None:
            if await self.learn(tp.partition, records, generation):
                stream.ack(tp, [record.offset for record in records], generation)

        await stream.serve_partitions(FEEDBACK_A_STEP, serve)

    async def learn(self, partition: int, records: list[Record], generation: int) -> bool:
        """Apply feedback records of one partition; return False, with none applied, if their generation has ended.

        Raises:
            PartitionTakenOver: another process learns in the partition, and the generation has not ended.
        """
        try:
            return await self._learn(partition, records, generation)
        except PartitionTakenOver as error:
            logger.warning("learning stops until partitions are given anew: %s", error)
            end_s = time.monotonic() + TAKEN_OVER_S
            while self._current(generation):
                if time.monotonic() > end_s:
                    raise
                await asyncio.sleep(LOOK_AGAIN_S)
            return False

    async def _learn(self, partition: int, records: list[Record], generation: int) -> bool:
        async with self._app.state_lock.of(partition):
            if not self._current(generation):
                return False
            position, at_s = self._selection.position(partition), records[-1].timestamp / 1000
            self._ahead_s[partition] = max(at_s - self._passed(), self._ahead_s.get(partition, -math.inf))
            fresh = [record for record in records if record.offset > position]
            traced = self._traces.begin_feedback(fresh) if self._traces.is_on else None
            claims = [record for record in fresh if is_marker(record)]
            found, undecodable = _decoded(fresh if not claims else [one for one in fresh if not is_marker(one)])
            if not await self._await_declarations(claims, generation):
                return False
            lookup = self._look_up(partition, found)
            if not await self._await_decisions(partition, found, lookup, generation):
                return False
            here, elsewhere = self._split(partition, found, lookup)
            markers, refused = read_markers(claims, self._registry.restore, self._catalogue.partitions)
            step = await self._fold(partition, here, lookup, markers)
            for record, error in [*undecodable, *refused]:
                step.refuse(record, "invalid", error)
            await self._forward(elsewhere)
            await send_dead_letters(self._app.outbox, self._catalogue.dead_letters, step.refused)
            last = records[-1].offset
            if not self._current(generation):
                return False
            if last > position:
                await self._selection.write(partition, step.rows, last, {self._catalogue.feedback_acks: step.acks})
                self._decisions.of(partition).note_applied_feedback(step.applied_feedback.items(), last, at_s)
            self._forget_before(partition, at_s)
            self._count(step, len(elsewhere))
            if traced is not None:
                self._traces.learned(traced, step, {record.offset for record, _ in elsewhere})
            return True

    async def forget_old(self) -> None:
        """Forget old decisions where all feedback was read: what comes later is younger than the newest prediction.

        All was read when each of `LOOKS` has said so: a broker that was deposed names an earlier end for a while.
        """
        generation = self._app.generation
        owned = self._app.owned_partitions(self._catalogue.feedback) if generation >= 0 else []
        newest_s = {partition: self._decisions.of(partition).newest_s for partition in owned}
        tps = {TopicPartition(self._catalogue.feedback, partition): partition for partition in owned}
        ends = await self._app.log_reader.end_offsets(tps)
        if not self._current(generation):
            return
        self._all_read = {one: looks for one, looks in self._all_read.items() if one in newest_s}
        for tp, partition in tps.items():
            looks = self._all_read.setdefault(partition, deque(maxlen=LOOKS))
            if self._app.consumer.finished_upto(TP(*tp)) < ends[tp]:
                looks.clear()
                continue
            looks.append(newest_s[partition])
            if len(looks) == LOOKS:
                self._forget_before(partition, looks[0])

    def _forget_before(self, partition: int, feedback_at_s: float) -> None:
        at_s = self._decisions.of(partition).forgettable_s(feedback_at_s)
        for index in (self._decisions, self._audits):
            index.of(partition).forget_before(at_s)

    async def rebuild_applied_feedback(self, since_ms: Mapping[int, int]) -> None:
        """Rebuild the notes of applied feedback up to the rows' position, by the fold without its effect on rows.

        `since_ms` says by owned partition, in milliseconds since the epoch, what need not be read.
        """
        starts: dict[TopicPartition, int | None] = {}
        ends: dict[TopicPartition, int] = {}
        for partition in since_ms:
            done, position = self._decisions.of(partition).applied_feedback_upto, self._selection.position(partition)
            if done < position:
                tp = TopicPartition(self._catalogue.feedback, partition)
                starts[tp], ends[tp] = done + 1, position + 1
        since = {tp: since_ms[tp.partition] for tp in starts}
        await self._app.log_reader.read(starts, self._note_read, ends, since)

    def _note_read(self, tp: TopicPartition, records: list[ConsumerRecord]) -> None:
        found, _ = _decoded(record for record in records if not is_marker(record))
        lookup = self._look_up(tp.partition, found)
        step = self._step(tp.partition, self._split(tp.partition, found, lookup)[0], lookup)
        at_s = records[-1].timestamp / 1000
        self._decisions.of(tp.partition).note_applied_feedback(step.applied_feedback.items(), records[-1].offset, at_s)

    async def _fold(
        self,
        partition: int,
        feedback: list[tuple[Record, Feedback]],
        lookup: DecisionLookup,
        markers: Sequence[tuple[Record, Restored]],
    ) -> Step:
        """Fold a step in turns, one with a marker in one turn, as it sets many rows."""
        size = max(len(feedback), 1) if markers else FEEDBACK_A_TURN
        async with self._turn:
            step = self._step(partition, feedback[:size], lookup, markers)
        for at in range(size, len(feedback), size):
            async with self._turn:
                await asyncio.sleep(0)
                self._step(partition, feedback[at : at + size], lookup, step=step)
        return step

    def _step(
        self,
        partition: int,
        feedback: list[tuple[Record, Feedback]],
        lookup: DecisionLookup,
        markers: Sequence[tuple[Record, Restored]] = (),
        step: Step | None = None,
    ) -> Step:
        joined = [
            JoinedFeedback(record, found, lookup.decisions[asked], lookup.audits.get(asked))
            for record, found in feedback
            for asked in [_asked(record, found)]
        ]
        offsets = [one.decision.offset for one in joined if one.decision is not None]
        return learn(
            joined,
            dict(zip(offsets, self._decisions.of(partition).applied_feedback(offsets), strict=True)),
            lambda row: self._selection.row(*row, partition),
            lambda name, _: self._registry.application(name),
            markers,
            lambda name: [(name, context) for context in self._selection.contexts(name, partition)],
            step,
        )

    def _look_up(self, partition: int, feedback: list[tuple[Record, Feedback]]) -> DecisionLookup:
        asked = (_asked(record, found) for record, found in feedback)
        return DecisionLookup(self._decisions.of(partition), self._audits.of(partition), asked)

    async def _await_declarations(self, claims: list[Record], generation: int) -> bool:
        """Wait for declarations that may still arrive; return False if the generation ended meanwhile."""
        if all(self._registry.restore(restore_id_of(record.headers) or "") for record in claims):
            return True
        control = TopicPartition(self._catalogue.control, 0)
        end = (await self._app.log_reader.end_offsets([control]))[control]
        while self._followed_upto() < end:
            await asyncio.sleep(LOOK_AGAIN_S)
            if not self._current(generation):
                return False
        return self._current(generation)

    def _split(
        self, partition: int, feedback: list[tuple[Record, Feedback]], lookup: DecisionLookup
    ) -> tuple[list[tuple[Record, Feedback]], list[tuple[Record, int]]]:
        """Split feedback into that of this partition, and that whose id names another partition, with its number."""
        here, elsewhere = [], []
        for record, found in feedback:
            target = self._named_partition(partition, record, found, lookup)
            if target is None:
                here.append((record, found))
            else:
                elsewhere.append((record, target))
        return here, elsewhere

    async def _forward(self, elsewhere: list[tuple[Record, int]]) -> None:
        by_target: dict[int, list[Outgoing]] = {}
        for record, target in elsewhere:
            headers = [*record.headers, (FORWARDED, str(record.partition).encode())]
            by_target.setdefault(target, []).append((record.key, record.value, headers))
        for target, records in by_target.items():
            await self._app.outbox.send(self._catalogue.feedback, target, records)

    async def _await_decisions(
        self, partition: int, feedback: list[tuple[Record, Feedback]], lookup: DecisionLookup, generation: int
    ) -> bool:
        """Wait for decisions and audits that are still to come; return False if the generation ended meanwhile."""
        awaited = self._incomplete(partition, feedback, lookup)
        if not awaited:
            return True
        without = [record for record, found in awaited if lookup.decisions[_asked(record, found)] is None]
        early_upto_ms = max((record.timestamp for record in without), default=0) + EARLY_FEEDBACK_MS
        while awaited and self._log_time_ms(partition) <= early_upto_ms:
            await asyncio.sleep(LOOK_AGAIN_S)
            if not self._current(generation):
                return False
            lookup.refresh()
            awaited = self._incomplete(partition, awaited, lookup)
        queries = TopicPartition(self._catalogue.queries, partition)
        end = (await self._app.log_reader.end_offsets([queries]))[queries]
        while awaited and self._app.consumer.finished_upto(TP(*queries)) < end:
            await asyncio.sleep(LOOK_AGAIN_S)
            if not self._current(generation):
                return False
            lookup.refresh()
            awaited = self._incomplete(partition, awaited, lookup)
        if awaited:
            await self._prediction_log.catch_up([partition])
        if not self._current(generation):
            return False
        lookup.refresh()
        return True

    def _log_time_ms(self, partition: int) -> float:
        """Return a time that the log has passed for sure, in milliseconds since the epoch."""
        return max(self._decisions.of(partition).newest_s, self._ahead_s[partition] + self._passed()) * 1000

    def _incomplete(
        self, partition: int, feedback: list[tuple[Record, Feedback]], lookup: DecisionLookup
    ) -> list[tuple[Record, Feedback]]:
        """Return the feedback of this partition whose decision or audit is not known yet."""
        return [
            (record, found)
            for record, found in feedback
            if not lookup.is_complete(_asked(record, found))
            and self._named_partition(partition, record, found, lookup) is None
        ]

    def _named_partition(self, partition: int, record: Record, found: Feedback, lookup: DecisionLookup) -> int | None:
        """Return the partition to forward the feedback to; None if it stays."""
        named = None if lookup.decisions[_asked(record, found)] is not None else partition_of(found.query_id)
        if named is None or named == partition or named >= self._catalogue.partitions:
            return None
        if _size_bytes(record) > FORWARDED_BYTES:
            return None
        return None if any(name == FORWARDED for name, _ in record.headers) else named

    def _current(self, generation: int) -> bool:
        return self._app.generation == generation

    def _count(self, step: Step, forwarded: int) -> None:
        for outcome, count in step.outcomes.items():
            self._metrics.count_feedback(outcome, count)
        if forwarded:
            self._metrics.count_feedback("forwarded", forwarded)
        for _, error in step.refused:
            self._metrics.count_dead_letters(self._catalogue.feedback, type(error).__name__)


def _decoded(
    records: Iterable[Record],
) -> tuple[list[tuple[Record, Feedback]], list[tuple[Record, Exception]]]:
    found: list[tuple[Record, Feedback]] = []
    undecodable: list[tuple[Record, Exception]] = []
    for record in records:
        try:
            found.append((record, decode_feedback(record)))
        except UndecodableRecord as error:
            undecodable.append((record, error))
    return found, undecodable


def _asked(record: Record, found: Feedback) -> Asked:
    return found.query_id, found.application, record.timestamp


def _size_bytes(record: Record) -> int:
    headers = sum(len(name) + len(value or b"") for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers
