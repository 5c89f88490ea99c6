"""What became of one query, read from the logs: its record, the prediction, and the feedback about it.

Rules of this file:
- An id says nothing about the time, unless a router gave it: logs are read in spans that go back from their ends, the
  newest predictions and queries first.
- Records of others cost a comparison of bytes: only what holds a part of the id is decoded.
- Of several predictions about a query the first in the log counts; one that repeats it has its `queried_at_ms`.
- Reading is bounded in records and in time; what was found until then is returned, and said not to be complete.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from clipper_agents.dead_letters.reader import letter_of
from clipper_agents.feedback.feedback_step import OrphanFeedback
from clipper_agents.kafka.errors import KafkaUnreachable
from clipper_agents.kafka.reader import FOLLOW_WAIT_S, NO_END, LogReader, Range, Record, open_reader
from clipper_agents.kafka.retry import RetryPolicy
from clipper_stream.client.access import failure
from clipper_stream.client.client_records import partition_for
from clipper_stream.client.errors import AccessRefused
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import UndecodableRecord
from clipper_topics.connection import KafkaConnection
from clipper_topics.feedback import EARLY_FEEDBACK_MS, Feedback, FeedbackAck
from clipper_topics.logged_records import decode_prediction, read_prediction
from clipper_topics.prediction import Prediction
from clipper_topics.query import Query
from clipper_topics.query_ids import answered_id, is_offset_id, partition_of

LOOK_BACK_S = (5.0, 60.0, 600.0)
"""Ages up to which logs are read, before all of the time that is asked for: most queries are seconds old."""
MOST_RECORDS = 2_000_000
SEARCH_S = 8.0
ANSWER_S = 10.0
"""A search ends by itself before; when it does not, no Kafka answers."""
PATIENCE = RetryPolicy(request_s=3.0, within_s=5.0)
"""So long a partition may have no leader; somebody waits for the answer."""
SLICE_RECORDS = 500
"""A millisecond's work, after which everybody else has a turn."""
ONE_BATCH_BYTES = 1
"""A fetch has the first batch however large it is."""
_AS_IT_IS = re.compile(rb"[A-Za-z0-9 ._:@-]+")
"""What no encoder of JSON escapes, not even one for web pages."""

T = TypeVar("T")


class LoggedQuery(NamedTuple):
    """Where a query's record is, and its timestamp in milliseconds since the epoch."""

    partition: int
    offset: int
    queried_at_ms: int


Queried = TypeVar("Queried", Prediction, LoggedQuery)


class LoggedFeedback(NamedTuple):
    """A feedback, and offset and timestamp (milliseconds since the epoch) of its record in the query's partition.

    The outcome is one of `clipper_topics.feedback.OUTCOMES`. It is None where no record tells it: no router has read
    the feedback yet, or it asked for no acknowledgement and was not refused.
    """

    said: Feedback
    offset: int
    at_ms: int
    outcome: str | None = None
    explanation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryHistory:
    """What the logs say about a query.

    Attributes:
        query: Its record; None where neither that nor a prediction was found.
        prediction: The first about it; None while it is being decided.
        feedback: In log order.
        complete: Whether all was read that had to be; if not, what is missing here may be in the logs.
    """

    query: LoggedQuery | None = None
    prediction: Prediction | None = None
    feedback: tuple[LoggedFeedback, ...] = ()
    complete: bool = True


def partitions_of_query(query_id: str, context: str | None, partitions: int) -> list[int]:
    """Return where a query may be: in the partition that its id names, or else in that of its context, or anywhere.

    Any client may have given it any key; the first is that of the id as a key.

    >>> partitions_of_query("3@41", None, 4), partitions_of_query("order 7", "user-42", 4)
    ([3], [0])
    >>> partitions_of_query("order 7", None, 3)
    [2, 0, 1]
    """
    named = partition_of(query_id)
    if named is not None and named < partitions:
        return [named]
    first = partition_for((query_id if context is None else context).encode(), partitions)
    return [first, *(one for one in range(partitions) if one != first and context is None)]


def id_part(query_id: str) -> bytes:
    """Return the longest part of an id that every record with the id holds as it is, in JSON and in msgpack.

    >>> id_part("order/7")
    b'order'
    """
    return max(_AS_IT_IS.findall(query_id.encode()), key=len, default=b"")


def named_offset(query_id: str) -> int | None:
    """Return the offset of the query to which a router gave this id; None for the id of a client."""
    offset = query_id.rpartition("@")[2]
    return int(offset) if is_offset_id(query_id) and len(offset) < len(str(NO_END)) else None


@dataclass(slots=True, kw_only=True)
class LogSearch:
    """One search for the records of a query in a partition, of any application for None, within bounds.

    Attributes:
        until_s: It ends by then, by the monotonic clock.
        complete: Whether no bound was met.
        read_from: Offset from which on each partition has been read.
    """

    reader: LogReader
    topics: Catalogue
    query_id: str
    application: str | None
    partition: int
    since_ms: float
    records_left: int
    until_s: float
    complete: bool = True
    read_from: dict[TopicPartition, int] = field(default_factory=dict)

    async def history(self, now_ms: float) -> QueryHistory:
        times_ms = [
            *(at_ms for age_s in LOOK_BACK_S if (at_ms := now_ms - age_s * 1000) > self.since_ms),
            self.since_ms,
        ]
        asked = prediction = None
        if (offset := named_offset(self.query_id)) is not None:
            record = await record_at(self.reader, TopicPartition(self.topics.queries, self.partition), offset)
            asked = None if record is None else _decoded(self._query_of, record)
            times_ms = times_ms if asked is None else [asked.queried_at_ms - EARLY_FEEDBACK_MS]
        for at_ms in times_ms:
            prediction = await self._first(self.topics.predictions, at_ms, self._prediction_of)
            if prediction is None and offset is None:
                asked = await self._first(self.topics.queries, at_ms, self._query_of)
            if prediction is not None or asked is not None:
                break
        if prediction is not None:
            self.application = prediction.application
            asked = LoggedQuery(self.partition, prediction.query_offset, prediction.queried_at_ms)
        feedback = () if asked is None else await self._feedback_since(asked.queried_at_ms - EARLY_FEEDBACK_MS)
        return QueryHistory(query=asked, prediction=prediction, feedback=feedback, complete=self.complete)

    async def _first(self, topic: str, at_ms: float, decode: Callable[[Record], Queried | None]) -> Queried | None:
        """Return the first about the query of those since a time that have not been read."""
        log = TopicPartition(topic, self.partition)
        found = await self._found(log, at_ms, decode, 1)
        if found and found[0].queried_at_ms < at_ms:  # what it repeats may be older
            found = await self._found(log, max(found[0].queried_at_ms, self.since_ms), decode, 1) or found
        return found[0] if found else None

    async def _feedback_since(self, at_ms: float) -> tuple[LoggedFeedback, ...]:
        log, acks = (TopicPartition(one, self.partition) for one in (self.topics.feedback, self.topics.feedback_acks))
        found = {one.offset: one for one in await self._found(log, at_ms, self._feedback_of)}

        def settled(record: Record) -> LoggedFeedback | None:
            offset, outcome, why = _ack(record) if record.topic == acks.topic else _letter(record, log)
            if (one := found.get(offset)) is None or one.outcome is not None:
                return None
            found[offset] = one._replace(outcome=outcome, explanation=why)
            return found[offset]

        for tp in (acks, TopicPartition(self.topics.dead_letters, 0)):
            open_ms = [one.at_ms for one in found.values() if one.outcome is None and (one.said.ack or tp != acks)]
            if open_ms:
                await self._found(tp, min(open_ms) - EARLY_FEEDBACK_MS, settled, len(open_ms))
        return tuple(found.values())

    def _is_own(self, query_id: str, application: str | None) -> bool:
        return query_id == self.query_id and (
            application == self.application or None in (application, self.application)
        )

    def _prediction_of(self, record: Record) -> Prediction | None:
        query_id, logged = read_prediction(record) or ("", None)
        found = decode_prediction(logged) if logged is not None and query_id == self.query_id else None
        return found if found is not None and self._is_own(query_id, found.application) else None

    def _query_of(self, record: Record) -> LoggedQuery | None:
        found = codec.raw_queries.decode(record.value, record.headers)
        is_own = self._is_own(answered_id(found.query_id, record.partition, record.offset), found.application)
        return LoggedQuery(record.partition, record.offset, record.timestamp) if is_own else None

    def _feedback_of(self, record: Record) -> LoggedFeedback | None:
        found = codec.feedback.decode(record.value, record.headers)
        is_own = self._is_own(found.query_id, found.application)
        return LoggedFeedback(found, record.offset, record.timestamp) if is_own else None

    async def _found(
        self, tp: TopicPartition, at_ms: float, decode: Callable[[Record], T | None], most: int = NO_END
    ) -> list[T]:
        """Return the first `most` that are decoded of records since a time and before those that have been read."""
        found: list[T] = []
        if not self.complete:
            return found
        end = (await self.reader.end_offsets([tp]))[tp]
        first = (await self.reader.offsets_at([tp], int(at_ms))).get(tp, end)
        span, part = Range(first, self.read_from.get(tp, end)), id_part(self.query_id)
        self.read_from[tp] = min(span)
        async with aclosing(self.reader.lists({tp: span}, max_records=SLICE_RECORDS)) as lists:
            async for _, records in lists:
                for record in records:
                    if part in (record.value or b"") and (one := _decoded(decode, record)) is not None:
                        found.append(one)
                        if len(found) >= most:
                            return found
                self.records_left -= len(records)
                if self.records_left <= 0 or time.monotonic() > self.until_s:
                    self.complete = False
                    break
                await asyncio.sleep(0)
        return found


def _decoded(decode: Callable[[Record], T | None], record: Record) -> T | None:
    with suppress(UndecodableRecord):
        return decode(record)
    return None


def _ack(record: Record) -> tuple[int, str, str | None]:
    ack = codec.feedback_acks.decode(record.value, record.headers)
    return ack.feedback_offset, ack.outcome, ack.explanation


def _letter(record: Record, log: TopicPartition) -> tuple[int, str, str | None]:
    """Offset, outcome and reason of the feedback that a dead letter is about; offset -1 for one of another log."""
    said = letter_of(record).said
    if said is None or (said.topic, said.partition) != log:
        return -1, "", None
    is_orphan = said.exception.endswith(f".{OrphanFeedback.__name__}")
    return said.offset, "orphan" if is_orphan else "invalid", said.message


async def acknowledged(
    kafka: KafkaConnection, catalogue: Catalogue, query_id: str, send: Callable[[], Awaitable[tuple[int, int]]]
) -> FeedbackAck:
    """Send a feedback that asks for an acknowledgement, and wait for that."""
    async with open_reader(kafka, fetch_wait_s=FOLLOW_WAIT_S) as reader:
        await reader.follow(await reader.end_offsets(await reader.partitions_of(catalogue.feedback_acks)))
        partition, offset = await send()
        while True:
            for tp, records in (await reader.fetch(wait_s=FOLLOW_WAIT_S)).items():
                for record in records:
                    ack = _decoded(lambda one: codec.feedback_acks.decode(one.value, one.headers), record)
                    is_elsewhere = tp.partition != partition  # it was sent on, to the partition of its query
                    if ack and ack.query_id == query_id and (is_elsewhere or ack.feedback_offset == offset):
                        return ack


async def record_at(reader: LogReader, tp: TopicPartition, offset: int) -> Record | None:
    """Return the record at an offset; None where the log has none."""
    found: list[Record] = []
    if offset < (await reader.end_offsets([tp]))[tp]:
        await reader.read({tp: offset}, lambda _, records: found.extend(records), {tp: offset + 1})
    return found[0] if found else None


class QueryHistoryReader:
    """Reads what became of queries; a process opens one, which connects with the first question."""

    def __init__(self, kafka: KafkaConnection, catalogue: Catalogue) -> None:
        self._kafka, self._catalogue = kafka, catalogue
        self._queries = LogReader(
            kafka, isolation_level="read_uncommitted", policy=PATIENCE, fetch_bytes=ONE_BATCH_BYTES
        )
        self._readers: list[LogReader] = []
        self._idle: list[LogReader] = []

    async def read(
        self, query_id: str, application: str | None, partitions: Sequence[int], *, since_ms: int
    ) -> QueryHistory:
        """Return what the logs say about a query; each search has a reader, and who asks bounds how many there are."""
        until_s = time.monotonic() + SEARCH_S
        if not self._idle:
            self._idle.append(LogReader(self._kafka, policy=PATIENCE))
            self._readers += self._idle
        reader = self._idle.pop()
        async with self._answers():
            found, records_left = QueryHistory(), MOST_RECORDS
            try:
                for partition in partitions:
                    search = LogSearch(
                        reader=reader, topics=self._catalogue, query_id=query_id, application=application,
                        partition=partition, since_ms=since_ms, records_left=records_left, until_s=until_s,
                    )  # fmt: skip
                    found = await search.history(time.time() * 1000)
                    if found.query is not None or not found.complete:
                        break
                    records_left = search.records_left
            finally:
                self._idle.append(reader)
            return found

    async def query_at(self, partition: int, offset: int) -> Query | None:
        """Return the query at an offset, committed or not; None where there is none. Errors as of `read`."""
        async with self._answers():
            record = await record_at(self._queries, TopicPartition(self._catalogue.queries, partition), offset)
        return None if record is None else _decoded(lambda one: codec.queries.decode(one.value, one.headers), record)

    async def close(self) -> None:
        for reader in (*self._readers, self._queries):
            await reader.close()

    @asynccontextmanager
    async def _answers(self) -> AsyncIterator[None]:
        """Translate errors; the brokers are not asked for the reason, which could take as long again."""
        try:
            async with asyncio.timeout(ANSWER_S):
                yield
        except (KafkaError, OSError) as error:
            reason = failure(self._kafka, "no Kafka answers", error)
            raise (reason if isinstance(reason, AccessRefused) else KafkaUnreachable(str(reason))) from error
