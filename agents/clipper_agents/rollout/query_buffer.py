"""Queries whose prediction, audit and feedback have not all been read yet.

Rules of this file:
- Of several predictions about a query of one application the first is the decision, and the first feedback about it
  that can be used counts, as for the learner. Feedback about a query that was not decided yet is an orphan.
- Feedback without an application is about the first decision under its id, also when that one is not followed.
- Memory is bounded: by the feedback horizon in the records' own time, and by a number of queries. What is dropped
  although it had feedback, or might still get some, is counted.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from clipper_agents.rollout.trial_evidence import Opened
from clipper_stream.feedback.join import disagreement
from clipper_topics.audit import Audit
from clipper_topics.feedback import Feedback
from clipper_topics.prediction import Prediction

Query = tuple[int, str, str]
"""Partition, query id and application."""


@dataclass(slots=True)
class BufferedQuery:
    """The records of one query, the first of which was written at `at_ms`.

    Attributes:
        done: Whether it was complete once.
        opened: What waits for its feedback; None while the decision is not known.
    """

    at_ms: int
    prediction: Prediction | None = None
    audit: Audit | None = None
    feedback: Feedback | None = None
    done: bool = False
    opened: list[Opened] | None = None

    @property
    def decided(self) -> bool:
        """Whether all that was asked and answered is known."""
        return self.prediction is not None and (self.audit is not None or not self.prediction.audited)

    @property
    def complete(self) -> bool:
        """Whether no other record is waited for."""
        return self.decided and self.feedback is not None


class QueryBuffer:
    """Queries by partition, id and application, oldest first.

    Attributes:
        dropped: By reason: `full` (more queries than are kept), `no_audit` (feedback came, the audit did not).
    """

    def __init__(
        self,
        horizon_s: float,
        most_queries: int,
        decided: Callable[[BufferedQuery], None] = lambda _: None,
        given_up: Callable[[BufferedQuery], None] = lambda _: None,
    ) -> None:
        self._horizon_ms, self._most = horizon_s * 1000, most_queries
        self._decided, self._given_up = decided, given_up
        self._queries: OrderedDict[Query, BufferedQuery] = OrderedDict()
        self._first: dict[tuple[int, str], str] = {}
        """Application of the first decision under an id, of those that are followed."""
        self._others: OrderedDict[int, int] = OrderedDict()
        """Time of the first decision under an id that is of nobody followed, by a hash of partition and id."""
        self.dropped: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._queries)

    def prediction(self, partition: int, found: Prediction, at_ms: int) -> BufferedQuery | None:
        """Take in a prediction; return the query when that completes it."""
        query = self._query((partition, found.query_id, found.application), at_ms)
        if hash((partition, found.query_id)) not in self._others:
            self._first.setdefault((partition, found.query_id), found.application)
        if query.prediction is None and not query.done:
            query.prediction = found
        return self._completed(query)

    def other(self, partition: int, query_id: str, at_ms: int) -> None:
        """Note a prediction that is not followed: feedback may be about it."""
        self.forget(at_ms)
        if (partition, query_id) not in self._first:
            self._others.setdefault(hash((partition, query_id)), at_ms)
            if len(self._others) > self._most:
                self._others.popitem(last=False)

    def audit(self, partition: int, found: Audit, at_ms: int) -> BufferedQuery | None:
        """Take in an audit; return the query when that completes it."""
        query = self._query((partition, found.query_id, found.application), at_ms)
        if query.audit is None and not query.done:
            query.audit = found
        return self._completed(query)

    def feedback(self, partition: int, found: Feedback, at_ms: int) -> BufferedQuery | None:
        """Take in a feedback; return the query when that completes it."""
        self.forget(at_ms)
        application = self._first.get((partition, found.query_id)) if found.application is None else found.application
        query = self._queries.get((partition, found.query_id, application or ""))
        if query is None or query.prediction is None or query.done or query.feedback is not None:
            return None
        if disagreement(found, query.prediction) is not None:
            return None
        query.feedback = found
        return self._completed(query)

    def reopen(self, query: BufferedQuery) -> None:
        """Wait for the next feedback: the one that came could not be used."""
        query.feedback, query.done = None, False

    def close(self, query: BufferedQuery) -> None:
        """Drop the records of a query that was used; its id stays, for feedback that repeats it."""
        query.prediction = query.audit = query.feedback = query.opened = None

    def forget(self, now_ms: int) -> None:
        """Drop queries that are older than the horizon."""
        while self._others and now_ms - next(iter(self._others.values())) > self._horizon_ms:
            self._others.popitem(last=False)
        while self._queries:
            query = next(iter(self._queries.values()))
            if now_ms - query.at_ms <= self._horizon_ms:
                return
            self._drop_oldest("no_audit", counts=query.feedback is not None)

    def _query(self, key: Query, at_ms: int) -> BufferedQuery:
        self.forget(at_ms)
        query = self._queries.get(key)
        if query is None:
            query = self._queries[key] = BufferedQuery(at_ms)
            if len(self._queries) > self._most:
                self._drop_oldest("full")
        return query

    def _drop_oldest(self, reason: str, *, counts: bool = True) -> None:
        (partition, query_id, application), query = self._queries.popitem(last=False)
        if self._first.get((partition, query_id)) == application:
            del self._first[partition, query_id]
        if not query.done:
            self.dropped[reason] += counts
            self._given_up(query)

    def _completed(self, query: BufferedQuery) -> BufferedQuery | None:
        if query.opened is None and query.decided and not query.done:
            query.opened = []
            self._decided(query)
        if query.done or not query.complete:
            return None
        query.done = True
        return query
