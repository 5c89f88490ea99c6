"""The Faust agent `route`: decodes queries and has the router decide about those that are new.

A query whose prediction is in the log already gets the same prediction again; a record that holds no query goes to the
dead letters.
"""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, groupby
from operator import attrgetter
from typing import Any, TypeAlias

import msgspec
from aiokafka import ConsumerRecord
from faust.types import TP

from clipper_agents.kafka.aiokafka_patches import LOG_APPEND_TIME
from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.decision_index import Known, LogIndex, PartitionIndex
from clipper_agents.router.effects import EffectRunner
from clipper_agents.router.left_backlogs import LeftBacklogs
from clipper_agents.router.prediction_log import PredictionLog
from clipper_agents.router.query_consumer import BoundedQueryConsumer
from clipper_agents.router.query_traces import UNTRACED, QueryTrace, QueryTraces
from clipper_agents.router.raw_rows import RawRow, raw_rows
from clipper_agents.streaming.dead_letters import DeadLetterSender, Refused
from clipper_agents.streaming.stream import by_partition
from clipper_stream.query import DecodedBlock, DecodedQuery, Router
from clipper_stream.query.planner import CONVERTED_TOGETHER
from clipper_topics import codec
from clipper_topics.codec import UndecodableRecord, read_headers
from clipper_topics.containers import LARGE_BYTES
from clipper_topics.query import MOST_ROWS, Query, check_query, is_plain
from clipper_topics.query_ids import answered_id

QUERIES_A_CHUNK = 1000
BYTES_A_CHUNK = 1 << 20
"""So that one client's large records, and not more than one of the largest, keep others waiting for a turn."""
MOST_UNWRITTEN = 2_000
"""Records of one partition that wait for the broker, at which it is read no further: some tens of rounds."""
BYTES_TOGETHER = 1 << 17
"""Of records that are objects at one time; a byte of the worst becomes seventy."""
BLOCK_FROM = 8
"""So many queries of an application at least are one block: for fewer, columns are dearer than objects."""

LONGEST_MS = 10**12
"""Thirty years: a `deadline_ms` has no upper bound, and an integer of 400 digits does not fit a float."""

Record: TypeAlias = ConsumerRecord[Any, Any]
Echoed: TypeAlias = tuple[tuple[str, bytes], ...]
PlainQuery: TypeAlias = tuple[Query, Record, Echoed]
"""A query, its record, and the headers that its prediction repeats."""


def decoded_together(records: list[Record]) -> Iterator[list[Record]]:
    """Yield the records in lists that are decoded one at a time, and are converted before the next."""
    start = size_bytes = 0
    for stop, record in enumerate(records):
        size_bytes += len(record.value or b"")
        if stop > start and (stop - start == CONVERTED_TOGETHER or size_bytes > BYTES_TOGETHER):
            yield records[start:stop]
            start, size_bytes = stop, len(record.value or b"")
    yield records[start:]


@dataclass(slots=True)
class DecodedQueries:
    """Queries of one list of records, and the records that hold none, each with the reason."""

    queries: list[DecodedQuery] = field(default_factory=list)
    blocks: list[DecodedBlock] = field(default_factory=list)
    undecodable: Refused = field(default_factory=list)


def decode_queries(
    records: list[Record], generation: int, now_s: float = math.inf, traces: QueryTraces = UNTRACED
) -> DecodedQueries:
    """Decode records of the queries topic.

    A query was asked when the broker says, whatever this process's clock says: that is when feedback may be about it.
    On a topic that keeps the clocks of applications, a time in the future counts as now: one of them is wrong.

    A query that cannot be answered although it can be read (both `input` and `inputs`, say) is still a query: it
    carries the reason as `invalid`, and gets an answer. One that claims an id of the form that routers give is answered
    under the id that its own record has.
    """
    decoded = DecodedQueries()
    queries, decode = decoded.queries, codec.queries.decode_as
    plain: defaultdict[tuple[str, str], list[PlainQuery]] = defaultdict(list)
    traced: dict[int, QueryTrace] = {}  # by offset
    is_traced = traces.is_on
    for record in records:
        kind, echoed, sampled = read_headers(record.headers) if record.headers else codec.NO_HEADERS
        trace = None if sampled is None or not is_traced else traces.begin(record, sampled)
        raw = len(record.value or b"") > LARGE_BYTES
        try:
            query = _decode_raw(kind, record.value) if raw else decode(kind, record.value)
        except UndecodableRecord as error:
            raw, without_rows = True, None if raw else _without_rows(kind, record.value)
            if without_rows is None:
                decoded.undecodable.append((record, error))
                traces.refuse(trace)
                continue
            query = without_rows
        if trace is not None:
            trace.decoded_ns, traced[record.offset] = time.time_ns(), trace
        if not raw and is_plain(query):
            plain[query.application, kind].append((query, record, echoed))
        else:
            queries.append(_received(query, record, generation, kind, echoed, now_s, raw, trace))
    for (application, kind), found in plain.items():
        if len(found) >= BLOCK_FROM:
            decoded.blocks.append(_block(application, kind, found, generation, now_s, traced))
        else:
            queries += (
                _received(query, record, generation, kind, echoed, now_s, False, traced.get(record.offset))  # noqa: FBT003
                for query, record, echoed in found
            )
    return decoded


def _without_rows(kind: str, value: bytes | None) -> Query | None:
    """Decode a query of which some row cannot be decoded, so that it is answered; None where more is wrong."""
    try:
        return _decode_raw(kind, value)
    except UndecodableRecord:
        return None


def _block(
    application: str, kind: str, found: list[PlainQuery], generation: int, now_s: float,
    traced: Mapping[int, QueryTrace],
) -> DecodedBlock:  # fmt: skip
    bounds_s = [_seconds(query.deadline_ms) for query, _, _ in found]
    echoed, offsets = [headers for _, _, headers in found], [record.offset for _, record, _ in found]
    return DecodedBlock(
        [query.query_id for query, _, _ in found],  # type: ignore[misc]
        application,
        [query.input for query, _, _ in found],
        [_asked_s(record, now_s) for _, record, _ in found],
        found[0][1].partition,
        offsets,
        generation,
        [record.key for _, record, _ in found],
        kind,
        bounds_s if any(bounds_s) else None,
        echoed if any(echoed) else None,
        {offsets.index(offset): trace for offset, trace in traced.items() if offset in offsets} if traced else {},
    )


def _asked_s(record: Record, now_s: float) -> float:
    asked_s: float = record.timestamp / 1000
    return asked_s if record.timestamp_type == LOG_APPEND_TIME else min(asked_s, now_s)


def _seconds(deadline_ms: float | None) -> float | None:
    return None if deadline_ms is None else max(0, min(deadline_ms, LONGEST_MS)) / 1000


def _decode_raw(kind: str, value: bytes | None) -> Query:
    """Decode a query, but not its rows."""
    found = codec.raw_queries.decode_as(kind, value)
    query: Query = found
    rows: Any = raw_rows(found.inputs, kind) if isinstance(found.inputs, msgspec.Raw) else None
    if isinstance(rows, list):
        whole: Any = found.inputs
        rows = [RawRow(row, kind, None if number else whole) for number, row in enumerate(rows)]
    query.inputs = rows
    if isinstance(found.input, msgspec.Raw):
        row = RawRow(found.input, kind, found.input)
        query.input = None if row.is_null and query.inputs is not None else row
    return query


def _rows(query: Query) -> list[Any]:
    """Return the rows, or none for a query with too many: its refusal would repeat the default output for each."""
    if query.inputs is not None:
        return query.inputs if len(query.inputs) <= MOST_ROWS else []
    return [query.input]


def _received(
    query: Query,
    record: Record,
    generation: int,
    kind: str,
    echoed: Echoed,
    now_s: float,
    raw: bool,
    trace: QueryTrace | None = None,
) -> DecodedQuery:
    packed = query.inputs is not None
    partition, offset = record.partition, record.offset
    return DecodedQuery(
        answered_id(query.query_id, partition, offset),
        query.application,
        _rows(query),
        _asked_s(record, now_s),
        partition,
        offset,
        generation,
        packed,
        query.context,
        _seconds(query.deadline_ms),
        query.models,
        record.key,
        kind,
        echoed,
        check_query(query),
        query.features,
        raw,
        trace=trace,
    )


class FreshQueries:
    """Decodes queries a few at a time, answers repeated ones again, and returns the new ones.

    Args:
        router: Has the queries in flight.
        decisions: Index of the decisions in the log.
        prediction_log: Repeats predictions.
        traces: Notes which queries are sampled.
    """

    def __init__(
        self,
        router: Router,
        decisions: LogIndex,
        prediction_log: PredictionLog,
        traces: QueryTraces = UNTRACED,
    ) -> None:
        self._router, self._decisions, self._prediction_log = router, decisions, prediction_log
        self._traces = traces

    def of(
        self,
        chunk: Mapping[TP, list[Record]],
        generation: int,
        now_s: float,
        undecodable: Refused,
        repeated: Counter[int],
    ) -> Iterator[DecodedQuery | DecodedBlock]:
        """Return the new queries of a chunk: plain ones in blocks, then the others, in log order.

        Args:
            chunk: Records by partition.
            generation: The consumer's, in which they were read.
            now_s: The time, seconds since the epoch.
            undecodable: Takes the records that hold no query.
            repeated: Has those added that are answered again, by partition.
        """
        for tp, records in chunk.items():
            for some in decoded_together(records):
                decoded = decode_queries(some, generation, now_s, self._traces)
                undecodable += decoded.undecodable
                index = self._decisions.of(tp.partition)
                blocks, queries = _undecided(decoded, index)
                asked = [(one.query_id, one.application, one.queried_at_s * 1000) for one in queries]
                decided = index.decided(asked)
                yield from blocks
                yield from self._new(queries, decided, repeated)

    def _new(
        self, queries: list[DecodedQuery], decided: list[Known | None], repeated: Counter[int]
    ) -> Iterator[DecodedQuery]:
        for query, known in zip(queries, decided, strict=True):
            if known is None or self._router.is_in_flight(query):
                yield query
            elif not known.own:
                yield query._replace(shares_id=True)
            else:
                repeated[query.partition] += 1
                self._prediction_log.repeat(query, known.logged)


def _undecided(decoded: DecodedQueries, index: PartitionIndex) -> tuple[list[DecodedBlock], list[DecodedQuery]]:
    """Return the blocks that are decided about before the others, and all other queries one by one, in log order.

    A query that is decided is not decided about before others; and where an id comes twice, none is: of two queries
    with one id the first in the log is decided about, and the second is its repetition.
    """
    blocks, queries = list[DecodedBlock](), decoded.queries
    ids = list(chain((query.query_id for query in queries), *(block.query_ids for block in decoded.blocks)))
    comes_twice = len({*ids}) < len(ids)
    for block in decoded.blocks:
        new = [] if comes_twice else index.undecided(block.query_ids)
        if len(new) == len(block):
            blocks.append(block)
        elif len(new) < BLOCK_FROM:
            queries += block
        else:
            blocks.append(block.at(new))
            queries += block.at(sorted({*range(len(block))}.difference(new)))
    queries.sort(key=attrgetter("offset"))
    return blocks, queries


class QueryAgent:
    """The agent that reads queries and has the router decide about them.

    Args:
        consumer: Acknowledges queries, and says when there is room for more.
        router: Decides.
        effects: Runs what the router asks for.
        fresh: Decodes queries, and answers those again that were answered before.
        prediction_log: Says how much of a partition waits for the broker.
        dead_letters: Takes records that hold no query.
        metrics: Counts dead letters.
        backlogs: Leaves backlogs of which queries are read too late.
        traces: Notes when sampled queries are decided about.
    """

    def __init__(
        self,
        consumer: BoundedQueryConsumer,
        router: Router,
        effects: EffectRunner,
        fresh: FreshQueries,
        prediction_log: PredictionLog,
        dead_letters: DeadLetterSender,
        metrics: RouterMetrics,
        backlogs: LeftBacklogs,
        traces: QueryTraces = UNTRACED,
    ) -> None:
        self._backlogs, self._traces = backlogs, traces
        self._consumer, self._router, self._effects, self._fresh = consumer, router, effects, fresh
        self._prediction_log, self._dead_letters = prediction_log, dead_letters
        self._metrics = metrics
        self._received: dict[TP, int] = {}
        """One past the last offset that was received in a generation."""
        self._received_in = -1

    async def serve(self, stream: Any) -> None:
        """Serve chunks of records until the process stops."""
        async for lists in stream.chunks(QUERIES_A_CHUNK, self.is_held, BYTES_A_CHUNK):
            generation = stream.generation
            await self._consumer.wait_for_room()
            chunk = by_partition(lists)
            self._backlogs.look(chunk, self.receive(chunk, generation))

    def receive(self, chunk: Mapping[TP, list[Record]], generation: int) -> set[int]:
        """Answer repeated queries again, refuse unreadable records, and decide about all new queries together.

        Return the partitions of which most new queries had waited for longer than they may still wait. The records of a
        generation that has ended are left alone: whoever has their partition now reads them again.
        """
        if generation != self._consumer.generation:
            return set()
        if generation != self._received_in:
            self._received, self._received_in = {}, generation
        undecodable: Refused = []
        repeated = Counter[int]()
        now_s = time.time()
        effects = self._router.receive(self._fresh.of(chunk, generation, now_s, undecodable, repeated), now_s)
        if self._traces.undecided:
            self._traces.decided(effects.requests)
        self._effects.run(effects)
        self._effects.end_audits()
        for partition, group in groupby(undecodable, key=lambda refused: refused[0].partition):
            self._refuse(partition, [*group], generation)
        for tp, records in chunk.items():
            if records:
                self._received[tp] = max(records[-1].offset + 1, self._received.get(tp, 0))
        new = {tp.partition: len(records) - repeated[tp.partition] for tp, records in chunk.items()}
        return {partition for partition, count in effects.behind.items() if 2 * count > new[partition]}

    def may_decide(self, tp: TP, query_id: str, end: int) -> bool:
        """Return whether a query with this id that stands in a partition before an end may still be decided about."""
        consumer = self._consumer
        received = self._received.get(tp, 0) if self._received_in == consumer.generation else 0
        if not consumer.has_taken(tp, received, end):
            return True
        return self._router.has_id(tp.partition, query_id) or self._effects.has_deferred(tp.partition, query_id)

    def is_held(self, tp: TP, most: int = MOST_UNWRITTEN) -> bool:
        """Return whether a partition has to wait until the broker has taken more of it: it has so many that wait."""
        return self._prediction_log.unwritten(tp.partition) >= most or self._dead_letters.is_full(tp)

    def _refuse(self, partition: int, undecodable: Refused, generation: int) -> None:
        """Have records that hold no query stored as dead letters, and then acknowledge them."""
        offsets = [record.offset for record, _ in undecodable]
        topic = undecodable[0][0].topic
        self._metrics.counter("clipper_dead_letters_total", topic, "undecodable").inc(len(offsets))
        self._dead_letters.put(undecodable, partial(self._consumer.acknowledge, partition, offsets, generation))
