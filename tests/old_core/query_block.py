"""Queries that are decided about together, as columns with an entry a query: the usual ones, without an object each.

Rules of this file:
- A block has queries of one application and partition, of one row each, that ask one model each, or all the same
  models, for an answer. A query is found by its index in the block.
- A query has one slot for each model that it asks: `model * count + index`.
- A query leaves its block as an `InFlightQuery` when it turns out to be unusual: a model failed, its deadline came, or
  the outputs do not make an answer.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from clipper_stream.combining.combiner import Combined
from clipper_stream.query.application import Application
from old_core.in_flight import LATE, OPEN, DecodedQuery, Failure, InFlightQuery, OpenRow, RowBlock
from clipper_stream.query.status import Status, move
from clipper_stream.selection.distribution import Decision


@dataclass(frozen=True, slots=True, eq=False)
class DecodedBlock:
    """Queries as their records say; each column as the field of `DecodedQuery`, whose other fields have their defaults.

    Attributes:
        deadlines_s: None where no query has a bound of its own.
        echoed: None where no query has such headers.
        traces: As `DecodedQuery.trace`, by index; of queries that are not sampled, most of them, there is none.
    """

    query_ids: list[str]
    application: str
    rows: list[Any]
    queried_at_s: list[float]
    partition: int
    offsets: list[int]
    generation: int
    keys: list[bytes | None]
    content_type: str
    deadlines_s: list[float | None] | None = None
    echoed: list[tuple[tuple[str, bytes], ...]] | None = None
    traces: Mapping[int, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.query_ids)

    def query(self, index: int) -> DecodedQuery:
        """One of the queries."""
        return DecodedQuery(
            self.query_ids[index],
            self.application,
            self.rows[index : index + 1],
            self.queried_at_s[index],
            self.partition,
            self.offsets[index],
            self.generation,
            deadline_s=None if self.deadlines_s is None else self.deadlines_s[index],
            key=self.keys[index],
            content_type=self.content_type,
            echoed=() if self.echoed is None else self.echoed[index],
            trace=self.traces.get(index),
        )

    def at(self, indices: Sequence[int]) -> "DecodedBlock":
        """Some of the queries."""
        own_s, echoed = self.deadlines_s, self.echoed
        return DecodedBlock(
            [self.query_ids[index] for index in indices],
            self.application,
            [self.rows[index] for index in indices],
            [self.queried_at_s[index] for index in indices],
            self.partition,
            [self.offsets[index] for index in indices],
            self.generation,
            [self.keys[index] for index in indices],
            self.content_type,
            None if own_s is None else [own_s[index] for index in indices],
            None if echoed is None else [echoed[index] for index in indices],
            {new: self.traces[old] for new, old in enumerate(indices) if old in self.traces} if self.traces else {},
        )

    def __iter__(self) -> Iterator[DecodedQuery]:
        """The queries, in log order."""
        return map(self.query, range(len(self)))


@dataclass(slots=True, eq=False, repr=False)
class QueryBlock:
    """Queries in flight; the fields that `InFlightQuery` has too are as there, one for all or an entry a query.

    Attributes:
        status: By query.
        width: How many models each query asks.
        open_queries: How many queries wait for an output.
        failed: Those with a failure, by index.
        shares_id: Whether another application's query with the same id as one of these is in flight.
    """

    queries: DecodedBlock
    application: Application
    decisions: list[Decision]
    weights: Mapping[str, float]
    block: RowBlock
    deadlines_s: list[float]
    asked_at_s: float
    first: int = field(default=0, init=False)
    count: int = field(init=False)
    status: bytearray = field(init=False)
    width: int = field(init=False)
    outputs: list[Any] = field(init=False)
    arrived_s: list[float] = field(init=False)
    open_queries: int = field(init=False)
    failed: set[int] = field(default_factory=set, init=False)
    shares_id: bool = field(default=False, init=False)
    _open_slots: list[int] = field(init=False)
    """How many slots of each query are open."""

    def __post_init__(self) -> None:
        self.count = self.open_queries = len(self.queries)
        self.width = len(self.decisions[0].models) if self.decisions else 1
        self.outputs, self.arrived_s = [OPEN] * (self.width * self.count), [0.0] * (self.width * self.count)
        self._open_slots = [self.width] * self.count
        self.status = bytearray(self.count)
        if self.decisions:
            move(self.status, range(self.count), Status.WAITING)

    @property
    def partition(self) -> int:
        """Partition of the queries."""
        return self.queries.partition

    def slots_by_ref(self) -> Mapping[str, Sequence[int]]:
        """The slots, by the model version that each asks."""
        if self.width > 1:
            count = self.count
            return {ref: range(n * count, (n + 1) * count) for n, ref in enumerate(self.decisions[0].models)}
        found: defaultdict[str, list[int]] = defaultdict(list)
        for slot, decision in enumerate(self.decisions):
            found[decision.models[0]].append(slot)
        return found

    def slots_of(self, index: int) -> range:
        """The slots of a query, in the order of its models."""
        return range(index, self.width * self.count, self.count)

    def due_s(self, slot: int) -> float:
        """When a query is to be answered with what is there, seconds since the epoch."""
        return self.deadlines_s[slot % self.count]

    def fill(self, slot: int, output: Any, now_s: float) -> bool:
        """Put a model's output into its slot; True when that was the query's last open one."""
        return bool(self.fill_together((slot,), (output,), now_s))

    def fill_together(self, slots: Sequence[int], outputs: Sequence[Any], now_s: float) -> list[int]:
        """Put outputs into their slots, where these are open; the queries that are complete by that, by index."""
        own, arrived_s, left, count = self.outputs, self.arrived_s, self._open_slots, self.count
        complete: list[int] = []
        for slot, output in zip(slots, outputs, strict=True):
            if own[slot] is OPEN:
                own[slot], arrived_s[slot] = output, now_s
                index = slot % count
                left[index] -= 1
                if not left[index]:
                    complete.append(index)
        self.open_queries -= len(complete)
        return complete

    def fill_cached(self, slot: int, output: Any) -> bool:
        """Put an output from the cache into its slot, which is open; True when that was the query's last open one."""
        return bool(self.fill_together((slot,), (output,), 0.0))

    def fail(self, slot: int, failure: Failure) -> bool:
        """Put a failure into a slot, which is open; True when that was the query's last open one."""
        self.failed.add(slot % self.count)
        return self.fill_cached(slot, failure)

    def wants(self, slot: int) -> bool:
        """Whether an output still changes an answer."""
        return self.outputs[slot] is OPEN

    def open(self) -> list[int]:
        """The queries that wait for an output, by index."""
        return [index for index, slots in enumerate(self._open_slots) if slots]

    def next_due_s(self) -> float:
        """The earliest deadline of a query that waits, of which there are some."""
        return min(map(self.deadlines_s.__getitem__, self.open()))

    def open_rows(self, indices: Sequence[int]) -> Iterator[OpenRow]:
        """The rows that queries still wait for, of those that others may wait for too."""
        for index in indices:
            for slot, ref in zip(self.slots_of(index), self.decisions[index].models, strict=True):
                candidate = self.application.by_ref[ref]
                if candidate.deterministic and self.outputs[slot] is OPEN:
                    yield slot, ref, candidate.digest + self.block.hashes[index]

    def refuse(self) -> None:
        """Answer all queries with the default output, without asking a model."""
        self.outputs = [self.application.default_output] * self.count
        self.queries.rows.clear()
        self.open_queries = 0
        move(self.status, range(self.count), Status.DEFAULTED)

    def expire(self, indices: Sequence[int]) -> list[int]:
        """Close the queries, of these, of which nothing has come, by index; what comes later finds no open slot."""
        silent = [index for index in indices if self._open_slots[index] == self.width]
        for index in silent:
            for slot in self.slots_of(index):
                self.outputs[slot] = LATE
            self._open_slots[index] = 0
        self.failed.update(silent)
        self.open_queries -= len(silent)
        return silent

    def leave(self, index: int) -> InFlightQuery:
        """Take a query out of the block, with what has arrived; what arrives later finds no open slot."""
        pending = InFlightQuery(self.queries.query(index))
        pending.count, pending.deadline_s, pending.shares_id = 1, self.deadlines_s[index], self.shares_id
        pending.ask(self.application, self.decisions[index], self.weights, self.block, index, self.asked_at_s)
        pending.failed = index in self.failed
        pending.status[0] = self.status[index]
        for model, slot in enumerate(self.slots_of(index)):
            pending.outputs[model], pending.arrived_s[model] = self.outputs[slot], self.arrived_s[slot]
            if self.outputs[slot] is OPEN:
                self.fill_cached(slot, LATE)
            else:
                pending.open_slots -= 1
        return pending


class BlockAnswers(NamedTuple):
    """Answers to some queries of a block.

    Attributes:
        indices: Of the queries that are answered.
        decided_at_s: When, seconds since the epoch.
        combined: The answer to each, where it asked several models; where it asked one, its output is the answer.
        refusals: Why each gets the default output instead, when nobody was asked, or nobody answered by the deadline.
    """

    block: QueryBlock
    indices: Sequence[int]
    decided_at_s: float
    combined: Sequence[Combined] = ()
    refusals: Sequence[Failure] = ()
