"""The Faust agent `route`: decodes queries and takes them into the pipeline; what is none goes to the dead letters.

Rules of this file:
- A query that can be read but not answered (both `input` and `inputs`, say) is still a query: it carries the reason,
  and gets an answer. One that claims an id of the form that routers give is answered under the id of its own record.
- A byte of the worst query becomes seventy. So the rows of a large one stay bytes, and it is a batch of its own. A row
  is decoded later, as what its application's input spec allows: a megabyte of maps where numbers are wanted ends at the
  first one. Where anything is wanted, lists and maps are counted first. Rows are counted before any is taken out.
- An id comes once among the batches of one list of records that take queries at one time: where it comes again, new
  batches begin, because of two queries with one id the first in the log is decided about.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
from aiokafka import ConsumerRecord
from faust.types import TP

from clipper_agents.kafka.aiokafka_patches import LOG_APPEND_TIME
from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.indexed_log import QueryLogs
from clipper_agents.router.pipeline import QueryPipeline
from clipper_agents.router.query_traces import UNTRACED, QueryTraces
from clipper_agents.router.set_aside import SkippedBacklogs
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.dead_letters import DeadLetterSender, Refused
from clipper_agents.streaming.stream import by_partition
from clipper_stream.errors import InvalidInput
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.query import OptionalFields, QueryBatch
from clipper_stream.query.batch import ReadQuery
from clipper_topics import codec
from clipper_topics.codec import JSON, MSGPACK, UndecodableRecord, no_extension, read_headers
from clipper_topics.containers import LARGE_BYTES, check_containers, json_structure, length_of
from clipper_topics.query import ID_CHARACTERS, MOST_ROWS, Query, check_query
from clipper_topics.query_ids import answered_id

QUERIES_A_CHUNK = 1000
BYTES_A_CHUNK = 1 << 20
"""So that one client's large records, and not more than one of the largest, keep others waiting for a turn."""
MOST_UNWRITTEN = 2_000
"""Records of one partition that wait for the broker, at which it is read no further: some tens of rounds."""
DECODED_TOGETHER = 128
"""So many records at a time: enough to spread the cost of a conversion, and few enough that what was decoded is still
in the processor's cache, and is freed before the next ones are decoded."""
BYTES_TOGETHER = 1 << 17
"""Of records that are objects at one time; a byte of the worst becomes seventy."""
ROWS_TOGETHER = 512
"""So many rows of packed queries are converted together, for the same reasons."""
LONGEST_MS = 10**12
"""Thirty years: a `deadline_ms` has no upper bound, and an integer of 400 digits does not fit a float."""

Record: TypeAlias = ConsumerRecord[Any, Any]


class QueryAgent:
    """Reads queries."""

    def __init__(
        self,
        app: ClipperApp,
        pipeline: QueryPipeline,
        logs: QueryLogs,
        dead_letters: DeadLetterSender,
        metrics: RouterMetrics,
        backlogs: SkippedBacklogs,
        traces: QueryTraces = UNTRACED,
    ) -> None:
        self._app, self._pipeline, self._logs = app, pipeline, logs
        self._dead_letters, self._metrics, self._backlogs, self._traces = dead_letters, metrics, backlogs, traces
        self._received: dict[TP, int] = {}
        """One past the last offset that was received in a generation."""
        self._received_in = -1

    async def serve(self, stream: Any) -> None:
        async for lists in stream.chunks(QUERIES_A_CHUNK, self.is_held, BYTES_A_CHUNK):
            generation = stream.generation
            await self._pipeline.room.wait()
            chunk = by_partition(lists)
            self._backlogs.skip_if_behind(chunk, self.receive(chunk, generation))

    def receive(self, chunk: Mapping[TP, list[Record]], generation: int) -> set[int]:
        """Take queries into the pipeline, and refuse unreadable records.

        Return the partitions of which most new queries had waited for longer than they may still wait. The records of a
        generation that has ended are left alone: whoever has their partition now reads them again.
        """
        if generation != self._app.generation:
            return set()
        if generation != self._received_in:
            self._received, self._received_in = {}, generation
        undecodable: Refused = []
        now_s = time.time()
        repeated, behind = self._pipeline.receive(self._decoded(chunk, generation, now_s, undecodable), now_s)
        for partition, group in groupby(undecodable, key=lambda refused: refused[0].partition):
            self._refuse(partition, [*group], generation)
        for tp, records in chunk.items():
            if records:
                self._received[tp] = max(records[-1].offset + 1, self._received.get(tp, 0))
        new = {tp.partition: len(records) - repeated[tp.partition] for tp, records in chunk.items()}
        return {partition for partition, count in behind.items() if 2 * count > new[partition]}

    def may_decide(self, tp: TP, query_id: str, end: int) -> bool:
        """Return whether a query with this id that stands in a partition before an end may still be decided about.

        It may while not all records before the end were taken, and all of these received; what was finished before this
        generation counts as received.
        """
        consumer = self._app.consumer
        received = self._received.get(tp, 0) if self._received_in == self._app.generation else 0
        tracker = consumer.trackers[tp]
        is_received = consumer.taken_upto(tp) >= end and tracker.first <= max(tracker.start, received)
        return not is_received or self._pipeline.has_id(tp.partition, query_id)

    def is_held(self, tp: TP, most: int = MOST_UNWRITTEN) -> bool:
        """Return whether a partition has to wait until the broker has taken more of it: it has so many that wait."""
        return self._logs.unwritten(tp.partition) >= most or self._dead_letters.is_full(tp)

    def _decoded(
        self, chunk: Mapping[TP, list[Record]], generation: int, now_s: float, undecodable: Refused
    ) -> Iterator[QueryBatch]:
        """Decode a few records at a time, so that few are objects at once; `undecodable` takes the others."""
        for records in chunk.values():
            for some in decoded_together(records):
                batches, refused = decode_queries(some, generation, now_s, self._traces)
                undecodable += refused
                yield from batches

    def _refuse(self, partition: int, undecodable: Refused, generation: int) -> None:
        offsets = [record.offset for record, _ in undecodable]
        topic = undecodable[0][0].topic
        self._metrics.counter("clipper_dead_letters_total", topic, "undecodable").inc(len(offsets))
        self._dead_letters.put(undecodable, partial(self._pipeline.acknowledge, partition, offsets, generation))


def decoded_together(records: list[Record]) -> Iterator[list[Record]]:
    """Yield the records in lists that are decoded one at a time, and are converted before the next."""
    start = size_bytes = 0
    for stop, record in enumerate(records):
        size_bytes += len(record.value or b"")
        if stop > start and (stop - start == DECODED_TOGETHER or size_bytes > BYTES_TOGETHER):
            yield records[start:stop]
            start, size_bytes = stop, len(record.value or b"")
    yield records[start:]


def decode_queries(
    records: list[Record], generation: int, now_s: float = math.inf, traces: QueryTraces = UNTRACED
) -> tuple[list[QueryBatch], Refused]:
    """Decode records of one partition of the queries topic.

    A query was asked when the broker says, whatever this process's clock says: that is when feedback may be about it.
    On a topic that keeps the clocks of applications, a time in the future counts as now: one of them is wrong.

    Returns:
        The queries, and the records that hold none, each with the reason.
    """
    batches, undecodable = _Batches(generation), Refused()
    for record in records:
        kind, echoed, sampled = read_headers(record.headers) if record.headers else codec.NO_HEADERS
        trace = None if sampled is None or not traces.is_on else traces.begin(record, sampled)
        try:
            query, raw = _decoded(kind, record.value)
        except UndecodableRecord as error:
            undecodable.append((record, error))
            traces.drop([trace] if trace is not None else [], "undecodable")
            continue
        plain = not raw and is_plain(query)
        query_id = query.query_id
        if not plain or query_id is None:
            query_id = answered_id(query_id, record.partition, record.offset)
        batch = batches.batch_of(query_id, query.application, record.partition, kind, alone=raw)
        queries, rows = batches.queries[batch], (query.input,) if plain else _rows(query)
        index = len(queries)
        queries.append((query_id, record.offset, _asked_s(record, now_s), record.key, rows))
        if not plain:
            batch.options[index] = _options(query, raw=raw)
            batches.close_full(batch, len(rows))
        if query.deadline_ms is not None:
            batch.bounds_s[index] = max(0, min(query.deadline_ms, LONGEST_MS)) / 1000
        if echoed:
            batch.echoed[index] = echoed
        if trace is not None:
            batch.traces[index] = trace
    return batches.filled(), undecodable


def is_plain(query: Query) -> bool:
    """Whether a query that can be used asks for one row under an id of its own, and leaves all choices to others."""
    query_id, deadline_ms = query.query_id, query.deadline_ms
    return (
        query_id is not None
        and query.input is not msgspec.UNSET
        and query.inputs is None
        and query.context is None
        and query.models is None
        and query.features is None
        and 0 < len(query_id) <= ID_CHARACTERS
        and "@" not in query_id
        and (deadline_ms is None or 1 <= deadline_ms < math.inf)
    )


class _Batches:
    """The batches of one list of records, in the order in which the first query of each comes.

    Attributes:
        queries: Those that are to be in each batch.
    """

    def __init__(self, generation: int) -> None:
        self._generation = generation
        self.queries: dict[QueryBatch, list[ReadQuery]] = {}
        self._filling: dict[tuple[str, str], QueryBatch] = {}
        self._ids: set[str] = set()

    def batch_of(self, query_id: str, application: str, partition: int, kind: str, *, alone: bool) -> QueryBatch:
        if query_id in self._ids:
            self._filling, self._ids = {}, set()
        self._ids.add(query_id)
        batch = None if alone else self._filling.get((application, kind))
        if batch is None:
            batch = QueryBatch(application, partition, self._generation, kind)
            self.queries[batch] = []
            if not alone:
                self._filling[application, kind] = batch
        return batch

    def close_full(self, batch: QueryBatch, rows_added: int) -> None:
        if rows_added > 1 and sum(len(rows) for *_, rows in self.queries[batch]) >= ROWS_TOGETHER:
            key = batch.application, batch.content_type
            if self._filling.get(key) is batch:
                del self._filling[key]

    def filled(self) -> list[QueryBatch]:
        for batch, queries in self.queries.items():
            batch.extend(queries)
        return [*self.queries]


def _decoded(kind: str, value: bytes | None) -> tuple[Query, bool]:
    """Decode a query; return it, and whether its rows are still bytes.

    Of a query of which some row cannot be decoded the rows are bytes too, so that it is answered.
    """
    if len(value or b"") > LARGE_BYTES:
        return _decode_raw(kind, value), True
    try:
        return codec.queries.decode_as(kind, value), False
    except UndecodableRecord:
        with suppress(UndecodableRecord):
            return _decode_raw(kind, value), True
        raise


def _decode_raw(kind: str, value: bytes | None) -> Query:
    raw = codec.raw_queries.decode_as(kind, value)
    query: Query = raw
    rows: Any = raw_rows(raw.inputs, kind) if isinstance(raw.inputs, msgspec.Raw) else None
    if isinstance(rows, list):
        whole: Any = raw.inputs
        rows = [RawRow(row, kind, None if number else whole) for number, row in enumerate(rows)]
    query.inputs = rows
    if isinstance(raw.input, msgspec.Raw):
        row = RawRow(raw.input, kind, raw.input)
        query.input = None if row.is_null and query.inputs is not None else row
    return query


def _asked_s(record: Record, now_s: float) -> float:
    asked_s: float = record.timestamp / 1000
    return now_s if asked_s > now_s and record.timestamp_type != LOG_APPEND_TIME else asked_s


def _rows(query: Query) -> Sequence[Any]:
    """Return the rows, or none for a query with too many: its refusal would repeat the default output for each."""
    if query.inputs is not None:
        return query.inputs if len(query.inputs) <= MOST_ROWS else []
    return [query.input]


def _options(query: Query, *, raw: bool) -> OptionalFields:
    packed = query.inputs is not None
    return OptionalFields(packed, query.context, query.models, query.features, check_query(query), raw)


# --- rows that stay bytes ---------------------------------------------------------------------------------------------
LOOKED_AT = 1 << 16
"""Bytes of a text that are looked at together: its depths take four times as many."""
Number = int | float | bool
Cell = Number | str | None
_NULL = {JSON: b"null", MSGPACK: b"\xc0"}
_LISTS = bytes([*range(0x90, 0xA0), 0xDC, 0xDD])
_COMMA, _OPENS = b",["
_STEPS = np.zeros(256, np.int8)
_STEPS[[*b"[{"]], _STEPS[[*b"]}"]] = 1, -1


class RawRow(NamedTuple):
    """One row as the record has it.

    Attributes:
        raw: Its bytes.
        kind: Their content type.
        rows: All rows of the record, of its first row; they are looked at once.
    """

    raw: msgspec.Raw
    kind: str
    rows: msgspec.Raw | None = None

    @property
    def is_null(self) -> bool:
        return memoryview(self.raw) == _NULL[self.kind]

    def decode(self, spec: RowSpec) -> Any:
        """The row, as `decode_queries` would have it.

        Raises:
            InvalidInput: it is no row of the spec.
        """
        dimensions = len(spec.shape) if spec.shape is not None else 1
        try:
            if spec.dtype == "json" and self.rows is not None:
                check_containers(bytes(self.rows), self.kind)
            wanted = spec.dtype if not spec.numeric else "gaps" if spec.missing else "numbers"
            return _decoder(self.kind, wanted, dimensions).decode(self.raw)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"a row of {len(bytes(self.raw))} bytes: {error}") from error


def raw_rows(rows: msgspec.Raw, kind: str) -> Sequence[msgspec.Raw] | range | None:
    """The rows of a packed query, each still undecoded; None for null. Of too many rows it has the number only.

    Raises:
        UndecodableRecord: they are no list.
    """
    count = _count_rows(bytes(rows), kind)
    if count > MOST_ROWS:
        return range(count)
    try:
        decoded: list[msgspec.Raw] | None = _decoder(kind, "rows", 0).decode(rows)
    except (ValueError, RecursionError) as error:
        raise UndecodableRecord(f"not {kind}: {error} - at `$.inputs`") from error
    return decoded


def _count_rows(rows: bytes, kind: str) -> int:
    """Count the values of a list, at least where they may be too many; 0 for anything else."""
    if kind != JSON:
        return length_of(rows) if rows[0] in _LISTS else 0
    if rows.count(b",") < MOST_ROWS:
        return 0
    structure, depth, commas = np.frombuffer(json_structure(rows), np.uint8), 0, 0
    for first in range(0, len(structure), LOOKED_AT):
        some = structure[first : first + LOOKED_AT]
        depths = depth + np.cumsum(_STEPS[some], dtype=np.int32)
        commas += int(((some == _COMMA) & (depths == 1)).sum())
        depth = int(depths[-1])
    return commas + 1 if len(structure) and structure[0] == _OPENS else 0


@lru_cache(maxsize=64)
def _decoder(kind: str, wanted: str, dimensions: int) -> Any:
    types: dict[str, Any] = {
        "rows": list[msgspec.Raw] | None,
        "text": str,
        "bytes": dict[str, str] if kind == JSON else bytes | dict[str, str],
        "json": Any,
        "table": dict[str, Cell] | list[Cell],
        "numbers": Number,
        "gaps": Number | None,
    }
    rows: Any = types[wanted]
    if wanted in ("numbers", "gaps"):
        for _ in range(dimensions):
            rows = list[rows]
        if kind != JSON:
            rows = bytes | rows
    return msgspec.json.Decoder(rows) if kind == JSON else msgspec.msgpack.Decoder(rows, ext_hook=no_extension)
