"""Records on their way into an indexed log, about queries of one batch."""

from collections.abc import Iterable, Sequence
from itertools import count, repeat
from typing import Any, NamedTuple, TypeAlias

from clipper_agents.streaming.outbox import Record
from clipper_stream.query import Answers, QueryBatch
from clipper_topics import codec
from clipper_topics.codec import headers_of
from clipper_topics.logged_records import audit_key

IndexEntry: TypeAlias = tuple[str, int, bytes, bool, bool]
"""Key in the index, offset, value, whether that is msgpack, and whether an audit follows."""


class OutgoingRecords(NamedTuple):
    """Predictions or audits to send.

    Attributes:
        batch: Has the queries that they are about.
        entries: These queries, or their audits.
        values: The bytes of each record.
        content_type: Of the values.
        answers: What is in the records; None for repetitions of recorded ones.
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
        return [(place, traces[query]) for place, query in enumerate(self.queries) if query in traces] if traces else []

    def records(self) -> Iterable[Record]:
        """The records as they are sent."""
        headers, echoed, queries = headers_of(self.content_type, state_json=True), self.batch.echoed, self.queries
        keys = [self.batch.keys[query] for query in queries]
        if not echoed:
            return zip(keys, self.values, repeat(headers), strict=False)
        return zip(keys, self.values, ([*headers, *echoed.get(query, ())] for query in queries), strict=True)

    def index_entries(self, first: int) -> Iterable[IndexEntry]:
        """What is to be indexed, when the first record has this offset."""
        if self.answers is None:
            return ()
        batch, queries, audit = self.batch, self.queries, self.batch.audit
        keys = [batch.ids[query] for query in queries]
        if queries is not self.entries and self.entries[0] >= len(batch):
            keys = [audit_key(batch.ids[query], batch.offsets[query]) for query in queries]
        audited = [entry in audit for entry in self.entries] if audit else repeat(False)  # noqa: FBT003
        msgpack = repeat(self.content_type == codec.MSGPACK)
        return zip(keys, count(first), self.values, msgpack, audited, strict=False)
