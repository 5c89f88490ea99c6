"""Records on their way into an indexed log: one about one query, or the predictions about queries of a block."""

from collections.abc import Callable, Iterable
from itertools import count, repeat
from typing import Any, NamedTuple, TypeAlias

from clipper_agents.streaming.outbox import Record
from clipper_stream.query import BlockAnswers, DecodedQuery, QueryAnswer
from clipper_topics import codec
from clipper_topics.codec import headers_of

Decided: TypeAlias = tuple[str, int, bytes, bool, bool]
"""Of a record: key in the index, offset, value, whether that is msgpack, and whether an audit follows."""


class Outgoing(NamedTuple):
    """A record to send.

    Attributes:
        query: The query that it is about.
        value: The record's bytes.
        content_type: Of the value.
        answer: The answer or the audit in it; None for the repetition of a recorded one.
    """

    query: DecodedQuery
    value: bytes
    content_type: str
    answer: QueryAnswer | None = None

    @property
    def partition(self) -> int:
        """Where it goes."""
        return self.query.partition

    @property
    def generation(self) -> int:
        """The consumer's when the query was read."""
        return self.query.generation

    @property
    def size(self) -> int:
        """Number of records."""
        return 1

    @property
    def shares_id(self) -> bool:
        """Whether another application's query has the same id."""
        return self.answer is not None and self.answer.pending.shares_id

    @property
    def traces(self) -> Iterable[tuple[int, Any]]:
        """Place of each record that is about a sampled query, and the query's trace."""
        return () if self.query.trace is None else ((0, self.query.trace),)

    def records(self) -> Iterable[Record]:
        """The records as they are sent."""
        headers, echoed = headers_of(self.content_type, state_json=True), self.query.echoed
        return ((self.query.key, self.value, [*headers, *echoed] if echoed else headers),)

    def decided(self, first: int, key: "Callable[[DecodedQuery], str]") -> Iterable[Decided]:
        """What is to be indexed, when the first record has this offset."""
        if self.answer is None:
            return ()
        audited = self.answer.pending.audit is not None
        return ((key(self.query), first, self.value, self.content_type == codec.MSGPACK, audited),)


class OutgoingBlock(NamedTuple):
    """Predictions to send, about queries of one block.

    Attributes:
        values: The bytes of each record.
    """

    answers: BlockAnswers
    values: list[bytes]

    @property
    def partition(self) -> int:
        """Where they go."""
        return self.answers.block.partition

    @property
    def generation(self) -> int:
        """The consumer's when the queries were read."""
        return self.answers.block.queries.generation

    @property
    def size(self) -> int:
        """Number of records."""
        return len(self.values)

    @property
    def shares_id(self) -> bool:
        """Whether another application's query has the same id as one of these."""
        return self.answers.block.shares_id

    @property
    def traces(self) -> Iterable[tuple[int, Any]]:
        """Place of each record that is about a sampled query, and the query's trace."""
        traces, indices = self.answers.block.queries.traces, self.answers.indices
        return [(indices.index(index), trace) for index, trace in traces.items() if index in indices] if traces else ()

    def records(self) -> Iterable[Record]:
        """The records as they are sent."""
        queries, indices = self.answers.block.queries, self.answers.indices
        headers = headers_of(queries.content_type, state_json=True)
        keys = [queries.keys[index] for index in indices]
        if queries.echoed is None:
            return zip(keys, self.values, repeat(headers), strict=False)
        return zip(keys, self.values, ([*headers, *queries.echoed[index]] for index in indices), strict=True)

    def decided(self, first: int, _: object) -> Iterable[Decided]:
        """What is to be indexed, when the first record has this offset."""
        queries = self.answers.block.queries
        ids, msgpack = queries.query_ids, queries.content_type == codec.MSGPACK
        own = [ids[index] for index in self.answers.indices]
        return zip(own, count(first), self.values, repeat(msgpack), repeat(False))  # noqa: FBT003


Sendable: TypeAlias = Outgoing | OutgoingBlock
