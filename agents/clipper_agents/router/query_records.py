"""Decodes records of the queries topic: what a query says, and what its record says about it."""

import math
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec
from aiokafka import ConsumerRecord

from clipper_stream.query import DecodedQuery
from clipper_topics import codec
from clipper_topics.codec import UndecodableRecord, content_type
from clipper_topics.query import MOST_ROWS, Query, check_query
from clipper_topics.query_ids import offset_id

Record: TypeAlias = ConsumerRecord[Any, Any]
LONGEST_MS = 10**12
"""Thirty years: a `deadline_ms` has no upper bound, and an integer of 400 digits does not fit a float."""


@dataclass(slots=True)
class DecodedQueries:
    """Queries of one list of records, and the records that hold none, each with the reason."""

    queries: list[DecodedQuery] = field(default_factory=list)
    undecodable: list[tuple[Record, UndecodableRecord]] = field(default_factory=list)


def decode_queries(records: list[Record], generation: int, now_s: float = math.inf) -> DecodedQueries:
    """Decode records of the queries topic.

    A timestamp in the future counts as now: on a topic that keeps the clocks of applications, one of them is wrong.

    A query that cannot be answered although it can be read (both `input` and `inputs`, say) is still a query: it
    carries the reason as `invalid`, and gets an answer.
    """
    decoded = DecodedQueries()
    queries, decode = decoded.queries, codec.queries.decode_as
    for record in records:
        kind = content_type(record.headers) if record.headers else codec.JSON
        try:
            query = decode(kind, record.value)
        except UndecodableRecord as error:
            decoded.undecodable.append((record, error))
        else:
            queries.append(_received(query, record, generation, kind, now_s))
    return decoded


def _rows(query: Query) -> list[Any]:
    """The rows; none of a query with too many, lest its refusal repeats the default output for each."""
    if isinstance(query.inputs, list):
        return query.inputs if len(query.inputs) <= MOST_ROWS else []
    return [query.input]


def _received(query: Query, record: Record, generation: int, kind: str, now_s: float) -> DecodedQuery:
    packed = query.inputs is not msgspec.UNSET
    partition, offset = record.partition, record.offset
    return DecodedQuery(
        query.query_id or offset_id(partition, offset),
        query.application,
        _rows(query),
        min(record.timestamp / 1000, now_s),
        partition,
        offset,
        generation,
        packed,
        query.context,
        None if query.deadline_ms is None else max(0, min(query.deadline_ms, LONGEST_MS)) / 1000,
        query.models,
        record.key,
        kind,
        check_query(query),
        query.features,
    )
