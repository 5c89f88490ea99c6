"""Predictions go out here, and nowhere else: sent, acknowledged, indexed, and only then is the query acknowledged.

Rules of this file:
- One round at a time: everything that is finished goes out as one batch a partition, and while the broker takes it, the
  next round gathers. So predictions of a partition are indexed in the order in which they stand in the log.
- Order of a round: send; wait for the broker; index the decision with its offset; acknowledge the query.
- Offsets that are not the successors of the last ones mean that somebody else wrote, a process that lost the partition
  and did not know it yet: what lies between is read from the log, and of two predictions the first is the decision.
- What belongs to an older generation of the consumer is dropped: its queries are read again, here or elsewhere.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from aiokafka import ConsumerRecord, TopicPartition

from clipper_agents.observability.stages import Stages, untimed
from clipper_agents.router.decisions import Decisions, Logged, PartitionDecisions
from clipper_agents.router.encoding import encode_answer, headers_of
from clipper_agents.streaming.log_reader import LogReader
from clipper_agents.streaming.outbox import Outbox, Record
from clipper_stream.query_life import Event, Way
from clipper_stream.routing import Answer, Received
from clipper_topics import codec
from clipper_topics.codec import MSGPACK_HEADERS, Codec, UndecodableRecord, content_type

logger = logging.getLogger(__name__)


MEMORY_ROUNDS = 10
RECORDED = Way(Event.RECORD, Event.ACKNOWLEDGE)


class Head(msgspec.Struct):
    """The part of a prediction that tells which query it answers."""

    query_id: str
    application: str = ""
    query_offset: int = -1


_heads = Codec(Head)


class Outgoing(NamedTuple):
    """One prediction to send.

    Attributes:
        query: The query.
        value: The prediction's bytes.
        content_type: Of the value.
        answer: The answer that it was made of; None when it repeats a recorded one.
    """

    query: Received
    value: bytes
    content_type: str
    answer: Answer | None = None


class RecordedCallback(Protocol):
    """Hears that a query's prediction is in the log; gives the records of the query that were read meanwhile."""

    def __call__(self, query: Received) -> Sequence[Received]: ...


class Recorder:
    """Sends, indexes and acknowledges predictions.

    Args:
        outbox: Sends.
        reader: Reads what others wrote.
        topic: The predictions topic.
        decisions: The index.
        generation: The consumer's generation now.
        recorded: Called for each answer when it is in the log.
        acknowledge: Called with partition, offsets and generation when queries are finished.
        sent: Called with the answers of a round, for metrics.
        stamped: Called for each batch that the broker has stamped with its own time: when it was sent, stamped and
            acknowledged, in seconds since the epoch.
        clock: Seconds since the epoch.
        stage: Times the parts of a round.
    """

    def __init__(
        self,
        outbox: Outbox,
        reader: LogReader,
        topic: str,
        decisions: Decisions,
        *,
        generation: Callable[[], int],
        recorded: RecordedCallback,
        acknowledge: Callable[[int, list[int], int], None],
        sent: Callable[[list[Answer]], None],
        stamped: Callable[[float, float, float], None] = lambda *_: None,
        clock: Callable[[], float] = time.time,
        stage: Stages = untimed,
    ) -> None:
        self._outbox, self._reader, self._topic, self._decisions = outbox, reader, topic, decisions
        self._generation, self._recorded, self._acknowledge, self._sent = generation, recorded, acknowledge, sent
        self._stamped, self._clock, self._stage = stamped, clock, stage
        self._waiting: list[Outgoing] = []
        self._read: set[int] = set()
        """Partitions of which records were read since the inputs flow: decisions made before may be second."""
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.delivery_s = 0.0
        """How long the broker takes to acknowledge predictions, smoothed over about ten rounds, in seconds."""

    def put(self, answers: Sequence[Answer]) -> None:
        """Record and send these answers."""
        with self._stage("encode", len(answers)):
            outgoing = [
                Outgoing(answer.pending.query, value, answer.pending.query.content_type, answer)
                for answer, value in map(encode_answer, answers)
            ]
        self._add(outgoing)

    def repeat(self, query: Received, logged: Logged) -> None:
        """The query was answered before: the same record read again is done, another record is answered again."""
        if head_of(logged).query_offset == query.offset:
            self._acknowledge(query.partition, [query.offset], query.generation)
        else:
            self._add([Outgoing(query, logged.value, codec.MSGPACK if logged.msgpack else codec.JSON)])

    async def idle(self) -> None:
        """Wait until nothing is being sent."""
        await self._idle.wait()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            waiting, self._waiting = self._waiting, []
            await self._round(waiting)
            if not self._waiting:
                self._idle.set()

    async def restore(self, partitions: Iterable[int], horizon_s: float) -> int:
        """Index what stands in the log behind the index, or all of it when the index is of another log.

        Args:
            partitions: Those that this process owns now.
            horizon_s: Older records are not needed.
        """
        ends = await self._reader.end_offsets([TopicPartition(self._topic, number) for number in partitions])
        for tp, end in ends.items():
            if self._decisions.of(tp.partition).last_offset >= end:
                logger.warning("decisions are ahead of their log partition=%d: rebuilding", tp.partition)
                self._decisions.of(tp.partition).clear()
        count = await self.catch_up(partitions, horizon_s)
        self._read.clear()
        return count

    async def catch_up(self, partitions: Iterable[int], horizon_s: float | None = None) -> int:
        """Index what stands in the log behind the index; how many records that were."""
        starts = {
            TopicPartition(self._topic, number): self._decisions.of(number).last_offset + 1 for number in partitions
        }
        return await self._reader.read(starts, self._index_read, horizon_s=horizon_s)

    def _add(self, outgoing: list[Outgoing]) -> None:
        if outgoing:
            self._waiting += outgoing
            self._idle.clear()
            self._work.set()

    async def _round(self, waiting: list[Outgoing]) -> None:
        generation = self._generation()
        by_partition: dict[int, list[Outgoing]] = {}
        for one in waiting:
            if one.query.generation == generation:
                by_partition.setdefault(one.query.partition, []).append(one)
        deliveries = []
        began_s, sent_s = time.monotonic(), self._clock()
        for partition, outgoing in by_partition.items():
            if self._generation() != generation:
                return
            delivery = await self._outbox.submit(self._topic, partition, map(_record, outgoing))
            deliveries.append((partition, outgoing, delivery))
        answers: list[Answer] = []
        for partition, outgoing, delivery in deliveries:
            offsets = await delivery.offsets()
            if delivery.stamped_s is not None:
                self._stamped(sent_s, delivery.stamped_s, self._clock())
            if await self._finish(partition, outgoing, offsets, generation):
                answers += [one.answer for one in outgoing if one.answer is not None]
        self._sent(answers)
        self.delivery_s += (time.monotonic() - began_s - self.delivery_s) / MEMORY_ROUNDS

    async def _finish(self, partition: int, outgoing: list[Outgoing], offsets: list[int], generation: int) -> bool:
        """Index and acknowledge what the broker has; False when the generation has ended."""
        if self._generation() != generation:
            return False
        decisions = self._decisions.of(partition)
        first = decisions.last_offset + 1
        if offsets != [*range(first, first + len(offsets))]:
            await self.catch_up([partition])
            if self._generation() != generation:
                return False
        else:
            with self._stage("index", len(outgoing)):
                _index(decisions, outgoing, first, look=partition in self._read)
        with self._stage("acknowledge", len(outgoing)):
            self._conclude(partition, outgoing, generation)
        return True

    def _conclude(self, partition: int, outgoing: list[Outgoing], generation: int) -> None:
        done: list[int] = []
        for one in outgoing:
            query, value, kind, answer = one
            done.append(query.offset)
            if answer is None:
                continue
            answer.pending.move(RECORDED)
            for again in self._recorded(query):
                if again.offset == query.offset:
                    done.append(again.offset)
                else:
                    self._add([Outgoing(again, value, kind)])
        self._acknowledge(partition, done, generation)

    def _index_read(self, tp: TopicPartition, records: list[ConsumerRecord[Any, Any]]) -> None:
        self._read.add(tp.partition)
        found = [(head.query_id, logged) for head, logged in map(read_prediction, records) if head is not None]
        at_s = min(records[-1].timestamp / 1000, time.time())  # a clock that was wrong once must not age everything
        self._decisions.of(tp.partition).index(found, records[-1].offset, at_s)


def _index(decisions: PartitionDecisions, outgoing: Sequence[Outgoing], first_offset: int, *, look: bool) -> None:
    """Index a batch that stands in the log from an offset on.

    A query is decided about when nothing is known of its id, and once. A repetition is never new. Something may be
    known meanwhile of another application's query with the same id, and, with `look`, of anything: records that
    somebody else wrote, who lost the partition or has it now, were read after the decision.
    """
    upto, now_s = first_offset + len(outgoing) - 1, time.time()
    decided = [
        (query.query_id, offset, value, kind == codec.MSGPACK)
        for offset, (query, value, kind, answer) in enumerate(outgoing, first_offset)
        if answer is not None
    ]
    if look or any(answer is not None and answer.pending.shares_id for *_, answer in outgoing):
        decisions.index([(one[0], Logged(*one[1:])) for one in decided], upto, now_s)
    else:
        decisions.index_new(decided, upto, now_s)


def _record(outgoing: Outgoing) -> Record:
    return outgoing.query.key, outgoing.value, headers_of(outgoing.content_type)


def head_of(logged: Logged) -> Head:
    """Which query a prediction answers."""
    return _heads.decode(logged.value, MSGPACK_HEADERS if logged.msgpack else ())


def answers(logged: Logged, query: Received) -> bool:
    """Whether a prediction with the query's id is about it: another application may use the same ids."""
    return head_of(logged).application == query.application


def read_prediction(record: ConsumerRecord[Any, Any]) -> tuple[Head | None, Logged]:
    """A record of the predictions topic; no head for one that is no prediction, whoever wrote it."""
    logged = Logged(record.offset, record.value or b"", content_type(record.headers) == codec.MSGPACK)
    try:
        return head_of(logged), logged
    except UndecodableRecord:
        return None, logged
