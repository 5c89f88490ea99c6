"""Query ids that name their partition, so that feedback finds its decision without the query's key."""

import uuid

PARTITION_DIGITS = 5
"""Longest partition number that an id names; longer digits before a dash are an id of somebody else's making."""


def minted_id(partition: int) -> str:
    """A new id for a query that will be produced to this partition.

    >>> minted_id(3).startswith("3-")
    True
    """
    return f"{partition}-{uuid.uuid4().hex}"


def offset_id(partition: int, offset: int) -> str:
    """The id of a query that came without one: the same at each redelivery.

    >>> offset_id(3, 41)
    '3-41'
    """
    return f"{partition}-{offset}"


def partition_of(query_id: str) -> int | None:
    """The partition that an id names, None for an id of the application's own making.

    >>> partition_of("3-41"), partition_of("order 7")
    (3, None)
    """
    head, dash, tail = query_id.partition("-")
    named = dash and tail and head.isascii() and head.isdigit() and len(head) <= PARTITION_DIGITS
    return int(head) if named else None
