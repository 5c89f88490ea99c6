"""From what a caller says to the record to send: checked, encoded, with its partition and key."""

from dataclasses import dataclass
from typing import Any

import msgspec
import xxhash
from aiokafka.partitioner import murmur2

from clipper_stream.answers import Answer, Truth
from clipper_stream.client.errors import InvalidFeedback, InvalidQuery
from clipper_stream.names import choices
from clipper_topics import codec, plain_values
from clipper_topics.feedback import TRUTHS, Feedback, check_feedback
from clipper_topics.plain_values import UNENCODABLE
from clipper_topics.query import Query, check_answered, check_query
from clipper_topics.query_ids import minted_id, partition_of

_canonical = msgspec.json.Encoder(order="deterministic")


def plain(value: Any) -> Any:
    """The value as `clipper_topics.plain_values.plain` has it.

    Raises:
        InvalidQuery: no record can hold it.
    """
    try:
        return plain_values.plain(value)
    except ValueError as error:
        raise InvalidQuery(str(error)) from error


def query_key(query: Query) -> bytes:
    """The record's key: the context, which must stay in one partition, else a digest that spreads the load.

    Equal inputs have equal keys, so that they meet in one partition's cache.
    """
    try:
        if query.context is not None:
            return query.context.encode()
        rows = query.input if query.inputs is None else query.inputs
        return xxhash.xxh3_64_hexdigest(_canonical.encode(rows)).encode()
    except UNENCODABLE as error:
        raise InvalidQuery(f"{error}: give text and numbers that JSON can hold") from error


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of a key: murmur2 as Java's producer computes it.

    >>> partition_for(b"user-42", 4)
    0

    Source: Kafka's `BuiltInPartitioner.partitionForKey`.
    """
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A record that can be sent, and the query that it is, or is about."""

    query_id: str
    partition: int
    key: bytes | None
    value: bytes


def prepare_query(query: Query, partitions: int, content_type: str, key: bytes | None = None) -> Prepared:
    """The query's record, under this key or its usual one; an id is minted when it has none.

    Raises:
        InvalidQuery: it cannot be sent as it is.
    """
    if problem := check_query(query):
        raise InvalidQuery(problem)
    key = query_key(query) if key is None else key
    partition = partition_for(key, partitions)
    query_id = query.query_id or minted_id(partition)
    if partition_of(query_id) not in (None, partition):
        raise InvalidQuery(
            f"query_id {query_id!r} names partition {partition_of(query_id)}, the key of this query is in {partition}: "
            "give an id of another form, or none"
        )
    try:
        value = codec.queries.encode(msgspec.structs.replace(query, query_id=query_id), content_type)
    except UNENCODABLE as error:
        raise InvalidQuery(_unwritable("the query", content_type, error)) from error
    return Prepared(query_id=query_id, partition=partition, key=key, value=value)


def prepare_feedback(
    query: Answer | str, truth: Truth, context: str | None, partitions: int, content_type: str
) -> Prepared:
    """The record of a feedback; arguments and errors are those of `Client.feedback`."""
    for name in truth:
        if name not in TRUTHS:
            raise InvalidFeedback(f"{name} cannot be given: {choices(name, TRUTHS)}")
    try:
        feedback = Feedback(**_whose(query, context), **{name: plain(value) for name, value in truth.items()})
        return place_feedback(feedback, query.key if isinstance(query, Answer) else None, partitions, content_type)
    except (InvalidQuery, *UNENCODABLE) as error:
        raise InvalidFeedback(f"{' and '.join(truth) or 'the feedback'} cannot be given: {error}") from error


def place_feedback(feedback: Feedback, key: bytes | None, partitions: int, content_type: str) -> Prepared:
    """The record of a feedback about a query whose id names its partition, or that has this key or a context.

    Raises:
        InvalidFeedback: it cannot be given as it is.
    """
    query_id, context = feedback.query_id, feedback.context
    if problem := check_feedback(feedback) or check_answered(query_id, context, partitions):
        raise InvalidFeedback(problem)
    key = context.encode() if context is not None else key
    partition = partition_of(query_id)
    if partition is None and key is not None:
        partition = partition_for(key, partitions)
    if partition is None:
        raise InvalidFeedback(f"nothing says which partition query {query_id!r} is in: give its answer, or its context")
    try:
        value = codec.feedback.encode(feedback, content_type)
    except UNENCODABLE as error:
        raise InvalidFeedback(_unwritable("the feedback's label", content_type, error)) from error
    return Prepared(query_id=query_id, partition=partition, key=key, value=value)


def _unwritable(what: str, content_type: str, error: Exception) -> str:
    why = "it has an integer of more than 64 bits, give it as text" if isinstance(error, OverflowError) else error
    return f"{what} cannot be written as {content_type}: {why}"


def _whose(query: Answer | str, context: str | None) -> dict[str, Any]:
    if isinstance(query, str):
        return {"query_id": query, "context": context}
    return {"query_id": query.query_id, "application": query.application, "context": query.context}
