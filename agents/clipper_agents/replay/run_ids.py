"""Ids of queries that are sent again: the same, or new ones of this run.

Rules of this file:
- A new id is a function of the old one and of the partition that the query goes to, so that feedback finds its query.
- Different queries have different new ids, also where several old partitions become one.
- An id that names its partition names the new one afterwards (`clipper_topics.query_ids`).
- No new id is longer than an id may be: what would be is a digest.
"""

import uuid
from typing import Protocol

import xxhash

from clipper_topics.query import ID_CHARACTERS
from clipper_topics.query_ids import partition_of


class Ids(Protocol):
    """Makes the id under which a query is sent again."""

    def __call__(self, query_id: str, partition: int) -> str:
        """Return the new id.

        Args:
            query_id: The logged id.
            partition: Partition to which the query is sent.
        """
        ...


def same_id(query_id: str, partition: int) -> str:
    """Return the logged id."""
    del partition
    return query_id


def new_run() -> str:
    """Return a name that no other run has."""
    return f"r{uuid.uuid4().hex[:12]}"


class NewIds(Ids):
    """Ids of one run, made of the logged id and the run's name.

    >>> ids = NewIds("r1")
    >>> ids("3-41", 3), ids("3-41", 0), ids("order 7", 0)
    ('3-41~r1', '0-3-41~m.r1', 'order 7~r1')

    Args:
        run: Name of the run, without `~`.
    """

    def __init__(self, run: str) -> None:
        self._run = run

    def __call__(self, query_id: str, partition: int) -> str:
        named = partition_of(query_id)
        stays = named is None or named == partition
        new = f"{query_id}~{self._run}" if stays else f"{partition}-{query_id}~m.{self._run}"
        if len(new) <= ID_CHARACTERS:
            return new
        digest = xxhash.xxh3_128_hexdigest(query_id.encode("utf-8", "surrogatepass"))
        return f"{partition}-{digest}~d.{self._run}" if named is not None else f"{digest}~d.{self._run}"
