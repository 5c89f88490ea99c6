"""The queries whose predictions are not recorded yet; a query that is read again joins its first record."""

from collections.abc import Collection, Iterable, Sequence

from clipper_stream.query.batch import QueryBatch
from clipper_stream.query.lifecycle import QueryState, set_state

Repetition = tuple[QueryBatch, int]
"""A record of a query that was read again, which gets the same prediction."""
BatchesById = dict[str, QueryBatch]


class QueriesInFlight:
    """Queries by partition, application and id, each with the batch that it is in.

    Attributes:
        repeats: Number of records of queries that were read again.
    """

    def __init__(self) -> None:
        self._batches: dict[int, dict[str, BatchesById]] = {}
        self._again: dict[tuple[int, str, str], list[Repetition]] = {}
        self.repeats = 0

    def __len__(self) -> int:
        return self.repeats + sum(len(own) for applications in self._batches.values() for own in applications.values())

    def has_id(self, partition: int, query_id: str) -> bool:
        return any(query_id in own for own in self._batches.get(partition, {}).values())

    def batches(self) -> set[QueryBatch]:
        by_id = (own for applications in self._batches.values() for own in applications.values())
        return {batch for own in by_id for batch in own.values()}

    def admit(self, batch: QueryBatch, known: Collection[int]) -> None:
        """Take in the queries that are neither in flight nor `known`: the batch's `new` ones."""
        applications, ids = self._batches.setdefault(batch.partition, {}), batch.ids
        own = applications.setdefault(batch.application, {})
        if not known and own.keys().isdisjoint(ids) and (len(ids) == 1 or len(set(ids)) == len(ids)):
            own.update(dict.fromkeys(ids, batch))
            batch.new = range(len(ids))
        else:
            batch.new = [query for query in range(len(ids)) if self._admit(batch, query, own, known=query in known)]
        if len(applications) > 1:
            for other in applications.values():
                for query_id in (other.keys() & ids) if other is not own else ():
                    other[query_id].shares_id = batch.shares_id = True
        if not own:
            del applications[batch.application]

    def _admit(self, batch: QueryBatch, query: int, own: BatchesById, *, known: bool) -> bool:
        query_id = batch.ids[query]
        if query_id in own:
            self._again.setdefault((batch.partition, batch.application, query_id), []).append((batch, query))
            self.repeats += 1
            set_state(batch.states, (query,), QueryState.REPEATED)
        elif known:
            set_state(batch.states, (query,), QueryState.KNOWN)
        else:
            own[query_id] = batch
            return True
        return False

    def remove(self, batch: QueryBatch, queries: Iterable[int]) -> Sequence[Repetition]:
        """End queries whose predictions are recorded; the records of them that were read meanwhile."""
        partition, application, ids, again = batch.partition, batch.application, batch.ids, list[Repetition]()
        own = self._batches.get(partition, {}).get(application, {})
        for query in queries:
            own.pop(ids[query], None)
            if self._again:
                again += self._again.pop((partition, application, ids[query]), ())
        if not own:
            self._batches.get(partition, {}).pop(application, None)
        self.repeats -= len(again)
        return again
