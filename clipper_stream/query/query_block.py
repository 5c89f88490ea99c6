"""Queries that are decided about together, as columns with an entry a query: the usual ones, without an object each.

Rules of this file:
- A block has queries of one application and partition that ask one model for one row each, for an answer. A query is
  found by its index in the block, which is its slot too.
- A query leaves its block as an `InFlightQuery` when it turns out to be unusual: its row failed, or its deadline came.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from clipper_stream.query.application import Application
from clipper_stream.query.in_flight import OPEN, DecodedQuery, Failure, InFlightQuery, OpenRow, RowBlock
from clipper_stream.selection.distribution import Decision


@dataclass(frozen=True, slots=True, eq=False)
class DecodedBlock:
    """Queries as their records say; each column as the field of `DecodedQuery`, whose other fields have their defaults.

    Attributes:
        deadlines_s: None where no query has a bound of its own.
        echoed: None where no query has such headers.
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
        )

    def __iter__(self) -> Iterator[DecodedQuery]:
        """The queries, in log order."""
        return map(self.query, range(len(self)))


@dataclass(slots=True, eq=False, repr=False)
class QueryBlock:
    """Queries in flight; the fields that `InFlightQuery` has too are as there, one for all or an entry a query.

    Attributes:
        open_slots: How many queries wait for their output.
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
    outputs: list[Any] = field(init=False)
    arrived_s: list[float] = field(init=False)
    open_slots: int = field(init=False)
    shares_id: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.count = self.open_slots = len(self.queries)
        self.outputs, self.arrived_s = [OPEN] * self.count, [0.0] * self.count

    @property
    def partition(self) -> int:
        """Partition of the queries."""
        return self.queries.partition

    def slots_by_ref(self) -> dict[str, list[int]]:
        """The slots, by the model version that each asks."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for slot, decision in enumerate(self.decisions):
            found[decision.models[0]].append(slot)
        return found

    def due_s(self, slot: int) -> float:
        """When a query is to be answered with what is there, seconds since the epoch."""
        return self.deadlines_s[slot]

    def fill(self, slot: int, output: Any, now_s: float) -> bool:
        """Put a model's output into its slot; True when it was open: the query is complete."""
        if self.outputs[slot] is not OPEN:
            return False
        self.outputs[slot] = output
        self.arrived_s[slot] = now_s
        self.open_slots -= 1
        return True

    def fill_cached(self, slot: int, output: Any) -> bool:
        """Put an output from the cache into its slot, which is open; True: the query is complete."""
        self.outputs[slot] = output
        self.open_slots -= 1
        return True

    def wants(self, slot: int) -> bool:
        """Whether an output still changes an answer."""
        return self.outputs[slot] is OPEN

    def open(self) -> list[int]:
        """The open slots."""
        return [slot for slot, output in enumerate(self.outputs) if output is OPEN]

    def next_due_s(self) -> float:
        """The earliest deadline of an open slot, of which there are some."""
        outputs = self.outputs
        return min(at_s for slot, at_s in enumerate(self.deadlines_s) if outputs[slot] is OPEN)

    def open_rows(self, slots: Sequence[int]) -> Iterator[OpenRow]:
        """The rows of open slots, of those that others may wait for too."""
        for slot in slots:
            ref = self.decisions[slot].models[0]
            candidate = self.application.by_ref[ref]
            if candidate.deterministic:
                yield slot, ref, candidate.digest + self.block.hashes[slot]

    def refuse(self) -> None:
        """Answer all queries with the default output, without asking a model."""
        self.outputs = [self.application.default_output] * self.count
        self.queries.rows.clear()
        self.open_slots = 0

    def leave(self, slot: int) -> InFlightQuery:
        """Take an open query out of the block."""
        pending = self.query(slot)
        self.outputs[slot] = pending
        self.open_slots -= 1
        return pending

    def query(self, slot: int) -> InFlightQuery:
        """A query of the block by itself, with nothing arrived."""
        pending = InFlightQuery(self.queries.query(slot))
        pending.count, pending.deadline_s, pending.shares_id = 1, self.deadlines_s[slot], self.shares_id
        pending.ask(self.application, self.decisions[slot], self.weights, self.block, slot, self.asked_at_s)
        return pending


class BlockAnswers(NamedTuple):
    """Answers to some queries of a block, each the output of the only model that it asked, which all agree with.

    Attributes:
        slots: Of the queries that are answered.
        decided_at_s: When, seconds since the epoch.
        refusals: Why each gets the default output instead, when nobody was asked.
    """

    block: QueryBlock
    slots: Sequence[int]
    decided_at_s: float
    refusals: Sequence[Failure] = ()
