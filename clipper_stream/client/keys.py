"""Keys and partitions of queries: what a producer in another language does with the default settings of Java's."""

from typing import Any

import msgspec
import xxhash
from aiokafka.partitioner import murmur2

from clipper_stream.client.errors import InvalidQuery
from clipper_topics import plain_values
from clipper_topics.plain_values import UNENCODABLE
from clipper_topics.query import Query

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
