"""The queries whose predictions are not recorded yet; a query that is read again joins its first record."""

from collections.abc import Collection, Iterable, Sequence

from clipper_stream.query.batch import QueryBatch
from clipper_stream.query.lifecycle import QueryState, set_state

Repetition = tuple[QueryBatch, int]
"""A record of a query that was read again, which gets the same prediction."""


class QueriesInFlight:
    """Queries by partition and id, each with the batch that it is in.

    Attributes:
        repeats: Number of records of queries that were read again.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._batches: dict[int, dict[str, QueryBatch]] = {}
        self._sharing: dict[tuple[int, str], dict[str, QueryBatch]] = {}
        """By partition and id, and by application: of an id that another application's query in flight has too."""
        self._again: dict[tuple[int, str, str], list[Repetition]] = {}
        self.repeats = 0

    def __len__(self) -> int:
        return sum(map(len, self._batches.values())) + sum(map(len, self._sharing.values())) + self.repeats

    def has_id(self, partition: int, query_id: str) -> bool:
        return query_id in self._batches.get(partition, ()) or (partition, query_id) in self._sharing

    def batches(self) -> set[QueryBatch]:
        by_id = (*self._batches.values(), *self._sharing.values())
        return {batch for batches in by_id for batch in batches.values()}

    def admit(self, batch: QueryBatch, known: Collection[int] = ()) -> None:
        """Take in the queries that are neither in flight nor `known`: the batch's `new` ones."""
        ids, held = batch.ids, self._batches.setdefault(batch.partition, {})
        is_new = not known and not self._sharing and held.keys().isdisjoint(ids)
        if is_new and (len(ids) == 1 or len(set(ids)) == len(ids)):
            held.update(dict.fromkeys(ids, batch))
            batch.new = range(len(ids))
        else:
            batch.new = [query for query in range(len(ids)) if self._admit(batch, query, held, known=query in known)]

    def _admit(self, batch: QueryBatch, query: int, held: dict[str, QueryBatch], *, known: bool) -> bool:
        place, application = (batch.partition, batch.ids[query]), batch.application
        holder, sharing = held.get(place[1]), self._sharing.get(place, {})
        if application in sharing or (holder is not None and holder.application == application):
            self._again.setdefault((*place, application), []).append((batch, query))
            self.repeats += 1
            set_state(batch.states, (query,), QueryState.REPEATED)
            return False
        if known:
            set_state(batch.states, (query,), QueryState.KNOWN)
            return False
        if holder is None:
            held[place[1]] = batch
        else:
            self._sharing.setdefault(place, {})[application] = batch
            holder.shares_id = batch.shares_id = True
        return True

    def remove(self, batch: QueryBatch, queries: Iterable[int]) -> Sequence[Repetition]:
        """End queries whose predictions are recorded; the records of them that were read meanwhile."""
        ids, held, again = batch.ids, self._batches.get(batch.partition, {}), list[Repetition]()
        if not self._sharing and not self._again:
            for query in queries:
                held.pop(ids[query], None)
            return again
        for query in queries:
            place = batch.partition, ids[query]
            sharing = self._sharing.get(place, {})
            if sharing.pop(batch.application, None) is None:
                held.pop(ids[query], None)
            elif not sharing:
                del self._sharing[place]
            again += self._again.pop((*place, batch.application), ())
        self.repeats -= len(again)
        return again
