"""The Faust agent `learn`: looks decisions up, waits for those that are still to come, stores what is learned, acks.

Rules of this file:
- Order of a step: dead letters; rows, position and acknowledgements, committed; rows here; applied feedback; offset.
- A step of a process that has lost its partition, and does not know it yet, is refused by Kafka.
- A feedback without a decision is an orphan only when the log's time is `EARLY_FEEDBACK_MS` behind it, every query that
  was in the log then has been read, none with its id is to be answered still, and the predictions topic has been read
  to its end. One whose decision has an audit waits until its query is finished: its audit is in the log then.
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
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from aiokafka import ConsumerRecord, TopicPartition
from faust.types import TP

from clipper_agents.feedback.feedback_step import (
    JoinedFeedback,
    Record,
    Restored,
    Step,
    decode_feedback,
    is_marker,
    learn,
    read_markers,
)
from clipper_agents.kafka.follower import TopicFollower
from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.decision_index import Asked, DecisionLookup
from clipper_agents.router.pipeline import QueryStores
from clipper_agents.router.queries import QueryAgent
from clipper_agents.router.query_traces import UNTRACED, QueryTraces
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.dead_letters import send_dead_letters
from clipper_agents.streaming.outbox import Record as Outgoing
from clipper_agents.streaming.partition_writer import PartitionTakenOver
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import UndecodableRecord
from clipper_topics.feedback import EARLY_FEEDBACK_MS, FORWARDED, Feedback, forwarded_header, said_at_ms
from clipper_topics.logged_records import prediction_head
from clipper_topics.query_ids import partition_of
from clipper_topics.restore import restore_id_of

logger = logging.getLogger(__name__)

FORWARDED_BYTES = 512 * 1024
"""Largest record that is forwarded: one near the broker's limit would be refused with one header more, for ever."""
LOOK_AGAIN_S = 0.05
TAKEN_OVER_S = 20.0
"""Longer than a member that was frozen needs to hear that it has lost its partitions."""
SETTLED_MS = 10_000
"""Longer than a process takes to commit what it has read, and more than the clocks of brokers differ."""
READ_POINTS = 4
"""Some ten seconds apart, so longer than a broker that was deposed takes to know it."""
FEEDBACK_A_STEP = 2_000
"""Feedback per transaction in a backlog; one costs about ten milliseconds."""
FEEDBACK_A_TURN = 250  # folded in some fifteen milliseconds, then answers have their turn, and another partition


class Given(NamedTuple):
    """Feedback, with the record that it stands in, and what it asks for."""

    record: Record
    said: Feedback
    asked: Asked


class ReadPoint(NamedTuple):
    """A time of the log up to which all feedback had been read when it was looked, and where the partition ended."""

    at_ms: float
    end: int


class FeedbackProcessor:
    """Applies feedback of the partitions that this process owns."""

    def __init__(
        self,
        app: ClipperApp,
        catalogue: Catalogue,
        stores: QueryStores,
        control: TopicFollower,
        queries: QueryAgent,
        metrics: RouterMetrics,
        traces: QueryTraces = UNTRACED,
    ) -> None:
        self._app, self._catalogue, self._control, self._queries = app, catalogue, control, queries
        self._registry, self._selection, self._logs = stores.registry, stores.selection, stores.logs
        self._decisions, self._audits = (log.index for log in stores.logs)
        self._metrics, self._traces = metrics, traces
        self._turn = asyncio.Lock()
        self._read_points: dict[int, list[ReadPoint]] = {}
        """By partition, in the order of their time."""
        self._ahead_s: dict[int, float] = {}
        """By partition, how much the log's time is ahead of that of the event loop, at the least."""

    async def serve(self, stream: Any) -> None:

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
            self._ahead_s[partition] = max(at_s - _loop_time_s(), self._ahead_s.get(partition, -math.inf))
            fresh = [record for record in records if record.offset > position]
            traced = self._traces.begin_feedback(fresh) if self._traces.is_on else []
            claims = [record for record in fresh if is_marker(record)]
            feedback, undecodable = _decoded(record for record in fresh if not is_marker(record))
            if not await self._await_declarations(claims, generation):
                return False
            lookup = self._look_up(partition, feedback)
            if not await self._await_decisions(partition, feedback, lookup, generation):
                return False
            here, elsewhere = self._split(partition, feedback, lookup)
            markers, refused = read_markers(claims, self._registry.restore, self._catalogue.partitions)
            step = await self._fold(partition, here, lookup, markers)
            for record, error in [*undecodable, *refused]:
                step.refuse(record, "invalid", error)
            await self._send_on(step.refused, elsewhere)
            last = records[-1].offset
            if not self._current(generation):
                return False
            if last > position:
                await self._selection.write(partition, step.rows, last, {self._catalogue.feedback_acks: step.acks})
                self._decisions[partition].note_applied_feedback(step.applied_feedback.items(), last, at_s)
            self._count(step, len(elsewhere))
            if traced:
                self._traces.learned(traced, step, {record.offset for record, _ in elsewhere})
            return True

    async def forget_old(self) -> None:
        """Forget decisions that no query and no feedback can be about that is still to come.

        Feedback of any partition may be sent on to this process's own. So it is forgotten up to a time of the log when
        each partition's feedback up to then had been read at `READ_POINTS` times in a row (a broker that was deposed
        names an earlier end for a while), and here what stood in the log at each of these times.
        """
        generation = self._app.generation
        owned = self._app.owned_partitions(self._catalogue.feedback) if generation >= 0 else []
        at_ms = max((self._decisions[partition].newest_s for partition in owned), default=0.0) * 1000 - SETTLED_MS
        is_read = bool(owned) and await self._is_read(at_ms)
        tps = {TopicPartition(self._catalogue.feedback, partition): partition for partition in owned}
        ends = await self._app.log_reader.end_offsets(tps) if is_read else {}
        for partition in self._read_points.keys() - (set(owned) if is_read else set()):
            del self._read_points[partition]
        if not self._current(generation):
            return
        for tp, end in ends.items():
            points = self._read_points.setdefault(tp.partition, [])
            passed = bisect_right(points, self._app.consumer.finished_upto(TP(*tp)), key=attrgetter("end"))
            if passed >= READ_POINTS:
                del points[: passed - READ_POINTS]
                self._forget(tp.partition, points[0].at_ms)
            points.append(ReadPoint(at_ms, end))

    async def _is_read(self, at_ms: float) -> bool:
        """Whether the feedback of all partitions up to a time has been read, by whichever process."""
        tps = [TopicPartition(self._catalogue.feedback, number) for number in range(self._catalogue.partitions)]
        ends = await self._app.log_reader.end_offsets(tps)
        later = await self._app.log_reader.offsets_at(tps, int(at_ms))
        read = await self._app.consumer.committed(tps)
        return all(read[TP(*tp)] >= later.get(tp, ends[tp]) for tp in tps)

    def _forget(self, partition: int, at_ms: float) -> None:
        unanswered_ms = self._app.consumer.trackers[TP(self._catalogue.queries, partition)].since_ms
        if unanswered_ms is not None:
            needed_ms = self._decisions[partition].needed_since_ms(min(at_ms, unanswered_ms))
            for index in (self._decisions, self._audits):
                index[partition].forget_before(needed_ms / 1000)

    async def rebuild_applied_feedback(self, since_ms: Mapping[int, int]) -> None:
        """Rebuild the notes of applied feedback up to the rows' position, by the fold without its effect on rows.

        `since_ms` says by owned partition, in milliseconds since the epoch, what need not be read.
        """
        starts: dict[TopicPartition, int | None] = {}
        ends: dict[TopicPartition, int] = {}
        for partition in since_ms:
            done, position = self._decisions[partition].applied_feedback_upto, self._selection.position(partition)
            if done < position:
                tp = TopicPartition(self._catalogue.feedback, partition)
                starts[tp], ends[tp] = done + 1, position + 1
        since = {tp: since_ms[tp.partition] for tp in starts}
        await self._app.log_reader.read(starts, self._note_read, ends, since)

    def _note_read(self, tp: TopicPartition, records: list[ConsumerRecord]) -> None:
        feedback, _ = _decoded(record for record in records if not is_marker(record))
        lookup = self._look_up(tp.partition, feedback)
        step = self._step(tp.partition, self._split(tp.partition, feedback, lookup)[0], lookup)
        at_s = records[-1].timestamp / 1000
        self._decisions[tp.partition].note_applied_feedback(step.applied_feedback.items(), records[-1].offset, at_s)

    async def _fold(
        self,
        partition: int,
        feedback: list[Given],
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
        feedback: list[Given],
        lookup: DecisionLookup,
        markers: Sequence[tuple[Record, Restored]] = (),
        step: Step | None = None,
    ) -> Step:
        joined = [
            JoinedFeedback(record, said, lookup.decisions[asked], lookup.audits.get(asked))
            for record, said, asked in feedback
        ]
        offsets = [one.decision.offset for one in joined if one.decision is not None]
        return learn(
            joined,
            dict(zip(offsets, self._decisions[partition].applied_feedback(offsets), strict=True)),
            lambda row: self._selection.row(*row, partition),
            lambda name, _: self._registry.applications.get(name),
            markers,
            lambda name: [(name, context) for context in self._selection.contexts(name, partition)],
            step,
        )

    def _look_up(self, partition: int, feedback: list[Given]) -> DecisionLookup:
        asked = (given.asked for given in feedback)
        return DecisionLookup(self._decisions[partition], self._audits[partition], asked)

    async def _await_declarations(self, claims: list[Record], generation: int) -> bool:
        """Wait for declarations that may still arrive; return False if the generation ended meanwhile."""
        if all(self._registry.restore(restore_id_of(record.headers) or "") for record in claims):
            return True
        control = TopicPartition(self._catalogue.control, 0)
        end = (await self._app.log_reader.end_offsets([control]))[control]
        while self._control.followed_upto() < end:
            await asyncio.sleep(LOOK_AGAIN_S)
            if not self._current(generation):
                return False
        return self._current(generation)

    def _split(
        self, partition: int, feedback: list[Given], lookup: DecisionLookup
    ) -> tuple[list[Given], list[tuple[Record, int]]]:
        here, elsewhere = [], []
        for given in feedback:
            target = self._named_partition(partition, given, lookup)
            if target is None:
                here.append(given)
            else:
                elsewhere.append((given.record, target))
        return here, elsewhere

    async def _send_on(self, refused: list[tuple[Record, Exception]], elsewhere: list[tuple[Record, int]]) -> None:
        """Send what is refused to the dead letters, and what is of other partitions to these."""
        by_target: dict[int, list[Outgoing]] = {}
        for record, target in elsewhere:
            headers = [*record.headers, forwarded_header(record.partition, record.timestamp)]
            by_target.setdefault(target, []).append((record.key, record.value, headers))
        for target, records in by_target.items():
            await self._app.outbox.send(self._catalogue.feedback, target, records)
        if refused:
            await send_dead_letters(self._app.outbox, self._catalogue.dead_letters, refused)

    async def _await_decisions(
        self, partition: int, feedback: list[Given], lookup: DecisionLookup, generation: int
    ) -> bool:
        """Wait for decisions and audits that are still to come; return False if the generation ended meanwhile."""
        missing = self._incomplete(partition, feedback, lookup)
        if not missing:
            return True
        queries, app = TP(self._catalogue.queries, partition), self._app
        without_ms = [given.record.timestamp for given in missing if lookup.decisions[given.asked] is None]
        early_upto_ms = max(without_ms, default=0) + EARLY_FEEDBACK_MS

        def is_early(_: Given) -> bool:
            return self._log_time_ms(partition) <= early_upto_ms

        def is_undecided(given: Given) -> bool:
            return lookup.decisions[given.asked] is None and self._queries.may_decide(queries, given.said.query_id, end)

        def is_audited(given: Given) -> bool:
            decision = lookup.decisions[given.asked]
            return decision is not None and self._is_open(queries, prediction_head(decision).query_offset, end)

        async def wait_while(holds: Callable[[Given], bool]) -> None:
            while any(map(holds, missing)) and self._current(generation):
                await asyncio.sleep(LOOK_AGAIN_S)
                lookup.refresh()
                missing[:] = self._incomplete(partition, missing, lookup)
            lookup.refresh()  # after the last look: what was decided before it is in the index
            missing[:] = self._incomplete(partition, missing, lookup)

        await wait_while(is_early)
        end = (await app.log_reader.end_offsets([TopicPartition(*queries)]))[TopicPartition(*queries)]
        await wait_while(is_undecided)
        await wait_while(is_audited)
        if missing and self._current(generation):
            await self._logs.catch_up([partition])
            lookup.refresh()
        return self._current(generation)

    def _is_open(self, queries: TP, offset: int, end: int) -> bool:
        """Return whether a query that was decided is not finished yet, of those before an end or read since."""
        frontier = self._app.consumer.trackers[queries]
        return offset < max(end, frontier.first) and not frontier.is_finished(offset)

    def _log_time_ms(self, partition: int) -> float:
        """Return a time that the log has passed for sure, in milliseconds since the epoch."""
        return max(self._decisions[partition].newest_s, self._ahead_s[partition] + _loop_time_s()) * 1000

    def _incomplete(self, partition: int, feedback: list[Given], lookup: DecisionLookup) -> list[Given]:
        return [
            given
            for given in feedback
            if not lookup.is_complete(given.asked) and self._named_partition(partition, given, lookup) is None
        ]

    def _named_partition(self, partition: int, given: Given, lookup: DecisionLookup) -> int | None:
        named = None if lookup.decisions[given.asked] is not None else partition_of(given.said.query_id)
        if named is None or named == partition or named >= self._catalogue.partitions:
            return None
        if _size_bytes(given.record) > FORWARDED_BYTES:
            return None
        return None if any(name == FORWARDED for name, _ in given.record.headers) else named

    def _current(self, generation: int) -> bool:
        return self._app.generation == generation

    def _count(self, step: Step, forwarded: int) -> None:
        for outcome, count in step.outcomes.items():
            self._metrics.counter("clipper_feedback_total", outcome).inc(count)
        if forwarded:
            self._metrics.counter("clipper_feedback_total", "forwarded").inc(forwarded)
        for _, error in step.refused:
            topic, kind = self._catalogue.feedback, type(error).__name__
            self._metrics.counter("clipper_dead_letters_total", topic, kind).inc()


def _loop_time_s() -> float:
    return asyncio.get_running_loop().time()


def _decoded(records: Iterable[Record]) -> tuple[list[Given], list[tuple[Record, Exception]]]:
    feedback: list[Given] = []
    undecodable: list[tuple[Record, Exception]] = []
    for record in records:
        try:
            said = decode_feedback(record)
        except UndecodableRecord as error:
            undecodable.append((record, error))
        else:
            asked = said.query_id, said.application, said_at_ms(record.timestamp, record.headers)
            feedback.append(Given(record, said, asked))
    return feedback, undecodable


def _size_bytes(record: Record) -> int:
    headers = sum(len(name) + len(value or b"") for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers
