"""Keys and partitions of queries: what a producer in another language does with the default settings of Java's."""

import base64
from typing import Any

import msgspec
import xxhash
from aiokafka.partitioner import murmur2

from clipper_stream.client.errors import InvalidQuery
from clipper_topics.query import Query

UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)
"""What encoding raises: a type or a map key that no record has, half a surrogate, a huge integer, a list in itself."""

_canonical = msgspec.json.Encoder(order="deterministic")


def plain(value: Any) -> Any:
    """The value with arrays as lists and numpy scalars as numbers; bytes become `{"base64": ...}`.

    >>> plain(b"abc")
    {'base64': 'YWJj'}
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"base64": base64.b64encode(value).decode()}
    try:
        return msgspec.to_builtins(value, enc_hook=_from_array)
    except UNENCODABLE as error:
        raise InvalidQuery(f"{error}: give numbers, nested numbers, text, bytes, or an array of numbers") from error


def _from_array(value: Any) -> Any:
    tolist = getattr(value, "tolist", None)
    if tolist is None:
        raise TypeError(f"a value of type {type(value).__name__} cannot be sent")
    return tolist()


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
