"""A query as it was read, and in flight: where it is in its life, which models it asks, and what has arrived.

Rules of this file:
- A query has one slot for each row of each model asked: `model * count + row`. A slot is filled once, by an output or
  by a `Failure`; `open_slots` counts those that still hold OPEN.
- When the query is answered its open slots hold LATE: what arrives later finds none.
- Rows of many queries are converted together, into one block; a query has `count` of them, from `first` on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from clipper_stream.caching.keys import row_hashes
from clipper_stream.query.application import Application
from clipper_stream.query.lifecycle import ASKED, QueryState, TransitionPath
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
        repeats: Records of the same query read again before it was recorded: answered with the same prediction.
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
    state: QueryState = field(default=QueryState.RECEIVED, init=False)
    repeats: list[DecodedQuery] | None = field(default=None, init=False)
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
        self.state = ASKED.end(self.state)

    def move(self, path: TransitionPath) -> None:
        """Move to the state at the end of the path."""
        self.state = path.end(self.state)

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

    def close(self) -> None:
        """Fill the open slots, of which there are some, with LATE: nothing is waited for any more."""
        self.outputs = [LATE if output is OPEN else output for output in self.outputs]
        self.failed = True


Key = tuple[int, str] | tuple[int, str, str]
"""Partition and query id; and the application, of a query whose id another application's query in flight has too."""


class QueriesInFlight:
    """The queries whose predictions are not recorded yet; a query that is read again joins its first record."""

    def __init__(self) -> None:
        self._queries: dict[Key, InFlightQuery] = {}
        self._repeats = self._sharing = 0

    @property
    def repeats(self) -> int:
        """Number of records of queries that were read again."""
        return self._repeats

    def __len__(self) -> int:
        """Number of queries, and of records of queries that were read again."""
        return len(self._queries) + self._repeats

    def __contains__(self, query: DecodedQuery) -> bool:
        """Whether the query was read, and its prediction is not recorded yet."""
        return self._key(query) in self._queries

    def __getitem__(self, query: DecodedQuery) -> InFlightQuery:
        """The query in flight of this record."""
        return self._queries[self._key(query)]

    def admit(self, query: DecodedQuery) -> InFlightQuery | None:
        """Take a query in; None when it is in flight already."""
        key: Key = (query.partition, query.query_id)
        if key in self._queries or self._sharing:
            return self._admit_sharing(query, self._key(query))
        pending = self._queries[key] = InFlightQuery(query)
        return pending

    def remove(self, query: DecodedQuery) -> Sequence[DecodedQuery]:
        """End a query whose prediction is recorded; the records of it that were read meanwhile."""
        key: Key = (query.partition, query.query_id)
        pending = self._queries.get(key)
        if pending is None or pending.query is not query:
            key = self._key(query)
            pending = self._queries.get(key)
            self._sharing -= pending is not None and len(key) > 2  # noqa: PLR2004 (with the application)
        if pending is None:
            return ()
        del self._queries[key]
        if pending.repeats is None:
            return ()
        self._repeats -= len(pending.repeats)
        return pending.repeats

    def clear(self) -> None:
        """Drop all queries."""
        self._queries.clear()
        self._repeats = self._sharing = 0

    def _key(self, query: DecodedQuery) -> Key:
        """The key under which a query is in flight, or would be."""
        key = (query.partition, query.query_id)
        own = (*key, query.application)
        holder = self._queries.get(key)
        other = holder is not None and holder.query.application != query.application
        return own if other or (self._sharing and own in self._queries) else key

    def _admit_sharing(self, query: DecodedQuery, key: Key) -> InFlightQuery | None:
        """Admit a query while one with the same id is in flight: the same again, or another application's."""
        known = self._queries.get(key)
        if known is not None:
            if known.repeats is None:
                known.repeats = []
            known.repeats.append(query)
            self._repeats += 1
            return None
        pending = self._queries[key] = InFlightQuery(query)
        if len(key) > 2:  # noqa: PLR2004 (with the application)
            self._queries[key[:2]].shares_id = pending.shares_id = True
            self._sharing += 1
        return pending
