"""Ids of queries that are sent again: the same, or new ones of this run.

Rules of this file:
- A new id is a function of the old one, so that feedback finds its query; different queries have different new ids.
- No new id is longer than an id may be: what would be is a digest.
- An id that a router gave is never kept: no query may claim it (`clipper_topics.query_ids`).
"""

import uuid
from typing import Protocol

import xxhash

from clipper_topics.query import ID_CHARACTERS
from clipper_topics.query_ids import is_offset_id


class Ids(Protocol):
    """Makes the id under which a query is sent again."""

    def __call__(self, query_id: str) -> str:
        """Return the new id for a logged one."""
        ...


def same_id(query_id: str) -> str:
    """Return the logged id, one that a router gave with a `~` behind it.

    >>> same_id("order 7"), same_id("3@41")
    ('order 7', '3@41~')
    """
    return f"{query_id}~" if is_offset_id(query_id) else query_id


def new_run() -> str:
    """Return a name that no other run has."""
    return f"r{uuid.uuid4().hex[:12]}"


class NewIds(Ids):
    """Ids of one run, made of the logged id and the run's name.

    >>> ids = NewIds("r1")
    >>> ids("3@41"), ids("order 7")
    ('3@41~r1', 'order 7~r1')

    Args:
        run: Name of the run, without `~`.
    """

    def __init__(self, run: str) -> None:
        self._run = run

    def __call__(self, query_id: str) -> str:
        new = f"{query_id}~{self._run}"
        if len(new) <= ID_CHARACTERS:
            return new
        return f"{xxhash.xxh3_128_hexdigest(query_id.encode('utf-8', 'surrogatepass'))}~d.{self._run}"
