"""What the router asks its caller to carry out."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

from clipper_stream.query.answers import Answers
from clipper_stream.query.batch import QueryBatch
from clipper_stream.query.requests import Request

K = TypeVar("K")


@dataclass(slots=True)
class Effects:
    """What steps of the router ask their caller to carry out.

    Attributes:
        audits: Audits to record once the answers to their queries are.
        entries: For the cache: keys and outputs, by partition.
        lookups: Rows looked up in the cache, by model reference; `hits`: rows found there.
        coalesced: Rows that joined an identical row in flight.
        forgotten: Tokens of requests whose answer is awaited no more.
        deferred: Queries for which there was no room, each with a time, seconds since the epoch: read them again when
            there is room, or at that time.
        queries: Queries that were new, by application; None: it is not registered.
        behind: Queries with a deadline that had waited for longer than they may still wait, by partition.
    """

    requests: list[Request] = field(default_factory=list)
    answers: list[Answers] = field(default_factory=list)
    audits: list[Answers] = field(default_factory=list)
    entries: dict[int, list[tuple[bytes, Any]]] = field(default_factory=dict)
    lookups: dict[str, int] = field(default_factory=dict)
    hits: dict[str, int] = field(default_factory=dict)
    coalesced: int = 0
    forgotten: list[int] = field(default_factory=list)
    deferred: list[tuple[QueryBatch, int, float]] = field(default_factory=list)
    queries: dict[str | None, int] = field(default_factory=dict)
    behind: dict[int, int] = field(default_factory=dict)


def count_in(counts: dict[K, int], key: K, count: int) -> None:
    """Add to a count."""
    counts[key] = counts.get(key, 0) + count
