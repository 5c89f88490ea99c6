"""What the router asks its caller to carry out."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from old_core.answer import QueryAnswer
from old_core.in_flight import DecodedQuery
from old_core.query_block import BlockAnswers, QueryBlock
from old_core.request_tracker import Request


@dataclass(slots=True)
class Effects:
    """What one call of the router asks its caller to carry out.

    Attributes:
        block_answers: Answers to queries that are in a block.
        audits: Audits to record once the answers to their queries are.
        lookups: Rows looked up in the cache, by model reference; `hits`: rows found there.
        coalesced: Rows that joined an identical row in flight.
        forgotten: Tokens of requests whose answer is awaited no more.
        deferred: Queries for which there was no room, each with a time, seconds since the epoch: give them to `receive`
            again when there is room, or at that time.
        queries: Queries that were new, by application; None: it is not registered.
        behind: Queries with a deadline that had waited for longer than they may still wait, by partition.
    """

    now_s: float
    requests: list[Request] = field(default_factory=list)
    answers: list[QueryAnswer] = field(default_factory=list)
    block_answers: list[BlockAnswers] = field(default_factory=list)
    audits: list[QueryAnswer] = field(default_factory=list)
    lookups: dict[str, int] = field(default_factory=dict)
    hits: dict[str, int] = field(default_factory=dict)
    coalesced: int = 0
    forgotten: list[int] = field(default_factory=list)
    deferred: list[tuple[DecodedQuery, float]] = field(default_factory=list)
    queries: dict[str | None, int] = field(default_factory=dict)
    behind: Counter[int] = field(default_factory=Counter)

    def count_queries(self, application: str | None, count: int) -> None:
        """Count queries that were new."""
        self.queries[application] = self.queries.get(application, 0) + count

    def count_lookups(self, ref: str, rows: int, hits: int, coalesced: int) -> None:
        """Count rows that were looked up in the cache: some were there, some are in flight already."""
        self.lookups[ref] = self.lookups.get(ref, 0) + rows
        self.hits[ref] = self.hits.get(ref, 0) + hits
        self.coalesced += coalesced


@dataclass(slots=True)
class Arrived:
    """What outputs, from models or the cache, have brought about.

    Attributes:
        entries: For the cache, by partition.
        completed: Queries that have all of their outputs, by block and index.
    """

    effects: Effects
    entries: defaultdict[int, list[tuple[bytes, bytes]]] = field(default_factory=lambda: defaultdict(list))
    completed: defaultdict[QueryBlock, list[int]] = field(default_factory=lambda: defaultdict(list))
