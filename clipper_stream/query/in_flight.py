"""A query in flight: where it is in its life, whom it asked, and what has arrived.

Rules of this file:
- A query has one place for each row of each model asked: `model * count + row`. A place is filled once, by an output or
  by a failure; `open_places` counts those that are not.
- When the query is answered its open places are closed: what arrives later finds none.
- Rows of many queries are converted together, into one block; a query has `count` of them, from `first` on.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from clipper_stream.query.application import Application
from clipper_stream.query.decoded_query import DecodedQuery
from clipper_stream.query.lifecycle import ASKED, QueryState, TransitionPath
from clipper_stream.selection.distribution import Decision


class NoOutput(Enum):
    """What stands in a place without an output: it is waited for, or it will not come."""

    OPEN = "open"
    CLOSED = "closed"


OPEN, CLOSED = NoOutput.OPEN, NoOutput.CLOSED
THROUGHPUT_WAIT_S = 60.0
"""How long a query without a deadline waits for a model: long for any batch, and short enough to bound memory."""

Failure = tuple[str, str]
"""Reason (`late` or `error`) and explanation."""


class InFlightQuery:
    """One query in flight.

    Attributes:
        query: The query.
        state: Where it is in its life (`query_life`).
        repeats: Records of the same query read again before it was recorded: answered with the same prediction.
        application: As it was when the decision was made.
        decision: Whom to ask.
        weights: Trust in each candidate at the decision.
        block: Rows of this and other queries, converted.
        first: Index of the query's first row in the block.
        count: How many rows it has.
        outputs: Output, OPEN or CLOSED, by place.
        failures: Why there is no output, by place; None when all is well.
        arrived_s: When the last output came that was not cached, seconds since the epoch, by model; 0.0 for none.
        open_places: How many places are neither filled nor failed.
        asked_at_s: When the decision was made, seconds since the epoch.
        features: What a contextual policy chooses by, given by the query or taken from its input; None: nothing.
        deadline_s: When to answer with what is there, seconds since the epoch.
        shares_id: Whether another application's query with the same id was answered before, or was in flight with it.
        audit: What is asked about the query for the log only; None when nobody is.
        audit_of: The query that this is the audit of; None for a query itself.

    >>> from clipper_stream.query.lifecycle import REFUSED
    >>> pending = InFlightQuery(DecodedQuery("0-1", "digits", [[1]], queried_at_s=0.0))
    >>> pending.move(REFUSED); pending.state.name
    'DEFAULTED'
    """

    __slots__ = (
        "application",
        "arrived_s",
        "asked_at_s",
        "audit",
        "audit_of",
        "block",
        "count",
        "deadline_s",
        "decision",
        "failures",
        "features",
        "first",
        "open_places",
        "outputs",
        "query",
        "repeats",
        "shares_id",
        "state",
        "weights",
    )

    application: Application
    decision: Decision
    weights: Mapping[str, float]
    block: Any
    first: int
    outputs: list[Any]
    failures: dict[int, Failure] | None
    arrived_s: list[float]
    audit: "InFlightQuery | None"
    audit_of: "InFlightQuery | None"
    open_places: int
    asked_at_s: float

    def __init__(self, query: DecodedQuery) -> None:
        self.query = query
        self.state = QueryState.RECEIVED
        self.repeats: list[DecodedQuery] | None = None
        self.count = len(query.rows)
        self.features = query.features
        self.deadline_s = 0.0
        self.shares_id = query.shares_id
        self.audit = self.audit_of = None

    def spawn_audit(self) -> "InFlightQuery":
        """What is to be asked about the query for the log only: waited for by nobody, until the same deadline."""
        audit = self.audit = InFlightQuery(self.query)
        audit.audit_of, audit.count, audit.deadline_s = self, self.count, self.deadline_s
        return audit

    def ask(
        self, application: Application, decision: Decision, weights: Mapping[str, float], block: Any, first: int,
        now_s: float,
    ) -> None:  # fmt: skip
        """The decision is made: these models are to answer."""
        models = len(decision.models)
        self.application, self.decision, self.weights = application, decision, weights
        self.block, self.first, self.asked_at_s = block, first, now_s
        self.open_places = models * self.count
        self.outputs = [OPEN] * self.open_places
        self.arrived_s = [0.0] * models
        self.failures = None
        self.state = ASKED.end(self.state)

    def move(self, path: TransitionPath) -> None:
        """Go where the events lead.

        Raises:
            IllegalMove: an event cannot happen in the state in which it finds the query.
        """
        self.state = path.end(self.state)

    def fill(self, place: int, output: Any, now_s: float) -> bool:
        """Put a model's output into its place; True when that was the last open one."""
        outputs = self.outputs
        if outputs[place] is not OPEN:
            return False
        outputs[place] = output
        self.arrived_s[place // self.count] = now_s
        self.open_places -= 1
        return self.open_places == 0

    def fill_cached(self, place: int, output: Any) -> bool:
        """Put an output from the cache into its place; True when that was the last open one."""
        self.outputs[place] = output
        self.open_places -= 1
        return self.open_places == 0

    def fail(self, place: int, failure: Failure) -> bool:
        """There will be no output; True when that was the last open place."""
        if self.outputs[place] is not OPEN:
            return False
        self.outputs[place] = CLOSED
        if self.failures is None:
            self.failures = {}
        self.failures[place] = failure
        self.open_places -= 1
        return self.open_places == 0

    def wants(self, place: int) -> bool:
        """Whether an output still changes the answer."""
        return self.outputs[place] is OPEN

    def close(self) -> None:
        """The answer is given: nothing is waited for any more."""
        if self.open_places:
            self.outputs = [CLOSED if output is OPEN else output for output in self.outputs]

    def row(self, place: int) -> int:
        """Index in the block of the row that a place is about."""
        return self.first + place % self.count
