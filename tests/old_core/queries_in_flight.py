"""The queries whose predictions are not recorded yet; a query that is read again joins its first record."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

from old_core.in_flight import DecodedQuery, InFlightQuery
from old_core.query_block import QueryBlock
from old_core.row_batch import Owner

Key = tuple[int, str] | tuple[int, str, str]
"""Partition and query id; and the application, of a query whose id another application's query in flight has too."""


class QueriesInFlight:
    """Queries by partition and id: each by itself, or in a block that it has not left."""

    def __init__(self) -> None:
        self._queries: dict[Key, Owner] = {}
        self._again: dict[Key, list[DecodedQuery]] = {}
        """The records that were read again, which get the same prediction."""
        self._repeats, self._sharing = 0, Counter[Key]()
        """Beside: how many other applications' queries have the id of one, by partition and id."""

    @property
    def repeats(self) -> int:
        """Number of records of queries that were read again."""
        return self._repeats

    def __len__(self) -> int:
        """Number of queries, and of records of queries that were read again."""
        return len(self._queries) + self._repeats

    def __contains__(self, query: DecodedQuery) -> bool:
        """Whether the query was read, and its prediction is not recorded yet."""
        return self._key(query) in self._queries

    def has_id(self, partition: int, query_id: str) -> bool:
        """Whether a query with this id is in flight, of whichever application."""
        return (partition, query_id) in self._queries or (partition, query_id) in self._sharing

    def admit(self, query: DecodedQuery) -> InFlightQuery | None:
        """Take a query in; None when it is in flight already."""
        key: Key = (query.partition, query.query_id)
        if key in self._queries or self._sharing:
            return self._admit_sharing(query, self._key(query))
        pending = self._queries[key] = InFlightQuery(query)
        return pending

    def is_new(self, partition: int, query_ids: Sequence[str]) -> bool:
        """Whether none of the ids is in flight, none comes twice, and no two applications share one."""
        if self._sharing or len(set(query_ids)) < len(query_ids):
            return False
        return self._queries.keys().isdisjoint(zip(repeat(partition), query_ids))

    def admit_block(self, block: QueryBlock) -> None:
        """Take queries in whose ids are new."""
        self._queries.update(dict.fromkeys(zip(repeat(block.partition), block.queries.query_ids), block))

    def leave_block(self, pending: InFlightQuery) -> None:
        """Note that a query has left its block."""
        self._queries[self._key(pending.query)] = pending

    def remove(self, query: DecodedQuery) -> Sequence[DecodedQuery]:
        """End a query whose prediction is recorded; the records of it that were read meanwhile."""
        key = self._key(query)
        if self._queries.pop(key, None) is None:
            return ()
        if len(key) > 2 and (left := self._sharing.pop(key[:2]) - 1) > 0:  # noqa: PLR2004 (with the application)
            self._sharing[key[:2]] = left
        return self._repeats_of(key)

    def remove_block(self, block: QueryBlock, indices: Iterable[int]) -> Sequence[DecodedQuery]:
        """End queries of a block whose predictions are recorded; the records of them that were read meanwhile."""
        queries, again = block.queries, list[DecodedQuery]()
        if self._sharing or self._again:
            for index in indices:
                again += self.remove(queries.query(index))
            return again
        ids, partition, pop = queries.query_ids, block.partition, self._queries.pop
        for index in indices:
            pop((partition, ids[index]), None)
        return ()

    def traces(self) -> Iterator[Any]:
        """The traces of sampled queries; of a block, also of those that are recorded."""
        for owner in {*self._queries.values()}:
            if isinstance(owner, QueryBlock):
                yield from owner.queries.traces.values()
            elif owner.query.trace is not None:
                yield owner.query.trace

    def clear(self) -> None:
        """Drop all queries."""
        self._queries.clear()
        self._again.clear()
        self._repeats = 0
        self._sharing.clear()

    def _key(self, query: DecodedQuery) -> Key:
        """The key under which a query is in flight, or would be."""
        key = (query.partition, query.query_id)
        holder = self._queries.get(key)
        if not self._sharing and (holder is None or _application(holder) == query.application):
            return key
        own = (*key, query.application)
        other = holder is not None and _application(holder) != query.application
        return own if other or own in self._queries else key

    def _admit_sharing(self, query: DecodedQuery, key: Key) -> InFlightQuery | None:
        """Admit a query while one with the same id is in flight: the same again, or another application's."""
        if key in self._queries:
            self._again.setdefault(key, []).append(query)
            self._repeats += 1
            return None
        pending = self._queries[key] = InFlightQuery(query)
        if len(key) > 2:  # noqa: PLR2004 (with the application)
            self._queries[key[:2]].shares_id = pending.shares_id = True
            self._sharing[key[:2]] += 1
        return pending

    def _repeats_of(self, key: Key) -> Sequence[DecodedQuery]:
        again = self._again.pop(key, ())
        self._repeats -= len(again)
        return again


def _application(owner: Owner) -> str:
    return owner.queries.application if isinstance(owner, QueryBlock) else owner.query.application
