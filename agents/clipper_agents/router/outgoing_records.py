"""Records on their way into an indexed log, about queries of one batch."""

from collections.abc import Callable, Iterable, Sequence
from itertools import count, repeat
from typing import Any, NamedTuple, TypeAlias

from clipper_agents.streaming.outbox import Record
from clipper_stream.query import Answers, QueryBatch
from clipper_topics import codec
from clipper_topics.codec import headers_of

Decided: TypeAlias = tuple[str, int, bytes, bool, bool]
"""Of a record: key in the index, offset, value, whether that is msgpack, and whether an audit follows."""
Keys: TypeAlias = Callable[[QueryBatch, Iterable[int]], list[str]]
"""The keys under which the records about queries are indexed."""


class Outgoing(NamedTuple):
    """Records to send.

    Attributes:
        batch: Has the queries that they are about.
        entries: These queries, or their audits.
        values: The bytes of each record.
        content_type: Of the values.
        answers: The answers or audits in them; None for repetitions of recorded ones.
    """

    batch: QueryBatch
    entries: Sequence[int]
    values: list[bytes]
    content_type: str
    answers: Answers | None = None

    @property
    def queries(self) -> Sequence[int]:
        """The query that each record is about."""
        return [self.batch.query_of(entry) for entry in self.entries] if self.batch.audit else self.entries

    @property
    def shares_id(self) -> bool:
        """Whether another application's query has the same id as one of these."""
        return self.answers is not None and self.batch.shares_id

    @property
    def traces(self) -> list[tuple[int, Any]]:
        """Place of each record that is about a sampled query, and the query's trace."""
        traces = self.batch.traces
        return [(place, traces[one]) for place, one in enumerate(self.queries) if one in traces] if traces else []

    def records(self) -> Iterable[Record]:
        """The records as they are sent."""
        headers, echoed, queries = headers_of(self.content_type, state_json=True), self.batch.echoed, self.queries
        keys = [self.batch.keys[query] for query in queries]
        if not echoed:
            return zip(keys, self.values, repeat(headers), strict=False)
        return zip(keys, self.values, ([*headers, *echoed.get(query, ())] for query in queries), strict=True)

    def decided(self, first: int, keys_of: Keys) -> Iterable[Decided]:
        """What is to be indexed, when the first record has this offset."""
        if self.answers is None:
            return ()
        audit = self.batch.audit
        audited = [entry in audit for entry in self.entries] if audit else repeat(False)  # noqa: FBT003
        msgpack = repeat(self.content_type == codec.MSGPACK)
        return zip(keys_of(self.batch, self.queries), count(first), self.values, msgpack, audited, strict=False)
