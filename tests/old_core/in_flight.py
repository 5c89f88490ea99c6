"""A query as it was read, and in flight: where it is in its life, which models it asks, and what has arrived.

Rules of this file:
- A query has one slot for each row of each model asked: `model * count + row`. A slot is filled once, by an output or
  by a `Failure`; `open_slots` counts those that still hold OPEN.
- When the query is answered its open slots hold LATE: what arrives later finds none.
- Rows of many queries are converted together, into one block; a query has `count` of them, from `first` on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from clipper_stream.caching.keys import row_hashes
from clipper_stream.query.application import Application
from clipper_stream.query.status import Status, move
from clipper_stream.selection.distribution import Decision

THROUGHPUT_WAIT_S = 60.0
"""How long a query without a deadline waits for a model: long for any batch, and short enough to bound memory."""


class Failure(NamedTuple):
    """Why there is no output: of a model for one row, of a model for all rows, or of a query, which gets the default.

    Attributes:
        reason: A word for programs: `late` or `error` of a row or a model; of a query as its prediction has it.
        explanation: A sentence for people.
    """

    reason: str
    explanation: str


OPEN: Final[Any] = object()
"""Stands in a slot whose output is outstanding."""
LATE = Failure("late", "no output by the deadline")
NO_FAILURES: Mapping[int, Failure] = MappingProxyType({})
"""By row: none."""
OpenRow = tuple[int, str, bytes]
"""Slot, model version and cache key of a row that is waited for."""


class DecodedQuery(NamedTuple):
    """One query as its record says. A tuple, which is made four times as cheaply as a frozen dataclass.

    Attributes:
        rows: Its rows as they were decoded; one for a query with `input`. The planner empties the list once it has
            converted them: thousands of queries in flight would hold a Python object for each of their numbers.
        queried_at_s: Timestamp of its record, seconds since the epoch.
        generation: Of the consumer when it was read; an acknowledgement of an older generation is void.
        packed: Whether it came with `inputs`, and wants `outputs`.
        context: Whose weights to use.
        deadline_s: Its own bound after `queried_at_s`, in seconds; None: the application's objective alone counts.
        models: Ask exactly these, when given.
        key: Of its record, as `content_type`; the prediction has the same.
        echoed: Headers of its record that its prediction and its audit repeat.
        invalid: What is wrong with it, when it can be read but not answered.
        features: Numbers for a contextual policy to choose by; None: it gives none.
        raw: Whether its rows are each an `UndecodedRow`: it is large, and the planner decodes it by itself.
        shares_id: Whether another application's query with the same id was answered before.
        trace: What notes the query's trace; None: it is not sampled.
    """

    query_id: str
    application: str
    rows: list[Any]
    queried_at_s: float
    partition: int = 0
    offset: int = 0
    generation: int = 0
    packed: bool = False
    context: str | None = None
    deadline_s: float | None = None
    models: list[str] | None = None
    key: bytes | None = None
    content_type: str = "application/json"
    echoed: tuple[tuple[str, bytes], ...] = ()
    invalid: str | None = None
    features: list[float] | None = None
    raw: bool = False
    shares_id: bool = False
    trace: Any = None


class RowBlock:
    """Rows of many queries of one application, converted together.

    Attributes:
        rows: A matrix with the rows on its first axis, or a list of rows.
    """

    __slots__ = ("_hashes", "rows")

    def __init__(self, rows: Any) -> None:
        self.rows = rows
        self._hashes: list[bytes] | None = None

    @property
    def hashes(self) -> list[bytes]:
        """The hash of each row, computed once, whichever models are asked."""
        if self._hashes is None:
            self._hashes = row_hashes(self.rows)
        return self._hashes


@dataclass(slots=True, eq=False, repr=False)
class InFlightQuery:
    """One query in flight, or an audit: what is asked beside a query for the log only.

    Attributes:
        status: Its `Status`, a column of one entry.
        application: As it was when the decision was made.
        weights: Trust in each candidate at the decision.
        block: The rows of this and other queries.
        first: Index of the query's first row in the block.
        count: How many rows it has.
        outputs: An output, a `Failure` or OPEN, by slot.
        arrived_s: When the last output came that was not cached, seconds since the epoch, by model; 0.0 for none.
        asked_at_s: When the decision was made, seconds since the epoch; 0.0: nobody was asked.
        features: What a contextual policy chooses by, given by the query or taken from its input; None: nothing.
        deadline_s: When to answer with what is there, seconds since the epoch.
        shares_id: Whether another application's query with the same id was answered before, or was in flight with it.
        audit_of: The query that this is the audit of; None for a query itself.
    """

    query: DecodedQuery
    status: bytearray = field(default_factory=lambda: bytearray(1), init=False)
    application: Application = field(init=False)
    decision: Decision = field(init=False)
    weights: Mapping[str, float] = field(init=False)
    block: RowBlock = field(init=False)
    first: int = field(init=False)
    count: int = field(init=False)
    outputs: list[Any] = field(init=False)
    failed: bool = field(init=False)
    arrived_s: list[float] = field(init=False)
    open_slots: int = field(init=False)
    asked_at_s: float = field(default=0.0, init=False)
    features: list[float] | None = field(init=False)
    deadline_s: float = field(init=False)
    shares_id: bool = field(init=False)
    audit: "InFlightQuery | None" = field(default=None, init=False)
    audit_of: "InFlightQuery | None" = field(default=None, init=False)

    def __post_init__(self) -> None:
        query = self.query
        self.count = len(query.rows)
        self.features = query.features
        self.shares_id = query.shares_id

    @property
    def partition(self) -> int:
        """Partition of the query."""
        return self.query.partition

    def due_s(self, slot: int) -> float:  # noqa: ARG002 (all slots have the query's deadline)
        """When the query is to be answered with what is there, seconds since the epoch."""
        return self.deadline_s

    def spawn_audit(self) -> "InFlightQuery":
        """Begin an audit: its outputs are logged but never delay the answer; it expires at the query's deadline."""
        audit = self.audit = InFlightQuery(self.query)
        audit.audit_of, audit.count, audit.deadline_s = self, self.count, self.deadline_s
        return audit

    def ask(
        self, application: Application, decision: Decision, weights: Mapping[str, float], block: RowBlock, first: int,
        now_s: float,
    ) -> None:  # fmt: skip
        """Open a slot for each row of each model of the decision."""
        models = len(decision.models)
        self.application, self.decision, self.weights = application, decision, weights
        self.block, self.first, self.asked_at_s = block, first, now_s
        self.open_slots = models * self.count
        self.outputs = [OPEN] * self.open_slots
        self.arrived_s = [0.0] * models
        self.failed = False
        self.move(Status.WAITING)

    def move(self, *to: Status) -> None:
        """Give the query other statuses, one after another."""
        for one in to:
            move(self.status, (0,), one)

    def fill(self, slot: int, output: Any, now_s: float) -> bool:
        """Put a model's output into its slot; True when that was the last open one."""
        outputs = self.outputs
        if outputs[slot] is not OPEN:
            return False
        outputs[slot] = output
        self.arrived_s[slot // self.count] = now_s
        self.open_slots -= 1
        return self.open_slots == 0

    def fill_cached(self, slot: int, output: Any) -> bool:
        """Put an output from the cache into its slot, which is open; True when that was the last open one."""
        self.outputs[slot] = output
        self.open_slots -= 1
        return self.open_slots == 0

    def fail(self, slot: int, failure: Failure) -> bool:
        """Put a failure into a slot; True when that was the last open one."""
        if self.outputs[slot] is not OPEN:
            return False
        self.outputs[slot] = failure
        self.failed = True
        self.open_slots -= 1
        return self.open_slots == 0

    def wants(self, slot: int) -> bool:
        """Whether an output still changes the answer."""
        return self.outputs[slot] is OPEN

    def open_rows(self) -> Iterator[OpenRow]:
        """The rows that the query still waits for, of those that others may wait for too."""
        count, outputs = self.count, self.outputs
        for model, ref in enumerate(self.decision.models):
            candidate = self.application.by_ref[ref]
            if candidate.deterministic:
                for row in range(count):
                    slot = model * count + row
                    if outputs[slot] is OPEN:
                        yield slot, ref, candidate.digest + self.block.hashes[self.first + row]

    def close(self) -> None:
        """Fill the open slots, of which there are some, with LATE: nothing is waited for any more."""
        self.outputs = [LATE if output is OPEN else output for output in self.outputs]
        self.failed = True
