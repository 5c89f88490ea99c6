"""The turn of a batch of queries: what stands in the stores, read between the steps of the router and written behind.

Rules of this file:
- Everything that a router's decision depends on is read here, in the order of a query's life: the application and its
  policy's choices, then the outputs in the cache. The router itself calls nobody.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

from clipper_stream.caching.clock import ClockCache, OutputCodec
from clipper_stream.query import Answers, Application, Effects, Lookup, QueryBatch, Router
from clipper_stream.query.batch import OPEN
from clipper_stream.query.planner import Choices
from clipper_stream.selection.trials import PolicyChoice


@dataclass(slots=True)
class QueryTurn:
    """A router and the stores around it.

    Attributes:
        router: Decides.
        application: The application of a name, None where it is not registered.
        choice: The policy's choice for (application, partition, context), from the totals known now.
        cache: Of a partition.
        codec: Of outputs in the cache.
    """

    router: Router
    application: Callable[[str], Application | None]
    choice: Callable[[Application, int, str | None], PolicyChoice]
    cache: Callable[[int], ClockCache]
    codec: OutputCodec

    def decide(self, batch: QueryBatch, now_s: float) -> None:
        """Take the new queries of a batch that was admitted to the models, or to the answer."""
        application = self.application(batch.application) if batch.new else None
        for lookup in self.router.plan(batch, application, self._choices(batch, application), now_s):
            self.router.found(lookup, self._cached(batch.partition, lookup))

    def lost_audit(self, batch: QueryBatch, query: int, answered: Container[str], now_s: float) -> Answers:
        """Begin the audit of a query that another process answered and did not live to audit.

        Args:
            batch: Has the query.
            query: Its index.
            answered: References of the models that the prediction names.
            now_s: The time, seconds since the epoch.
        """
        alone, application = batch.alone(query), self.application(batch.application)
        return self.router.lost_audit(alone, application, self._choices(alone, application), answered, now_s)

    def keep(self, effects: Effects) -> None:
        """Write outputs into the caches."""
        dumps = self.codec.dumps
        for partition, entries in effects.entries.items():
            self.cache(partition).put_many([(key, dumps(output)) for key, output in entries])

    def _choices(self, batch: QueryBatch, application: Application | None) -> Choices:
        if application is None:
            return {}
        contexts = {None, *(one.context for one in batch.options.values())} if batch.options else (None,)
        return {context: self.choice(application, batch.partition, context) for context in contexts}

    def _cached(self, partition: int, lookup: Lookup) -> Sequence[Any] | None:
        """Return the outputs in the cache, OPEN where there is none; None where there is nothing."""
        keys = lookup.part.keys
        values = self.cache(partition).get_many(keys)
        if values.count(None) == len(keys):
            return None
        return [OPEN if value is None else self.codec.loads(value) for value in values]
