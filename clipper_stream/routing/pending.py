"""A query in flight: one slot for each row of each model asked.

Rules of this file:
- A slot is filled once, by an output or by a failure; `open_slots` counts those that are not.
- A model counts in the answer only when all its rows have outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clipper_stream.routing.application import Application
from clipper_stream.routing.life import Life
from clipper_stream.selection.decision import Decision


class _Open:
    """An unfilled slot."""

    def __repr__(self) -> str:
        return "OPEN"


OPEN = _Open()
THROUGHPUT_WAIT_S = 60.0
"""How long a query without a deadline waits for a model: long for any batch, and short enough to bound memory."""


class Pending:
    """One query, its decision, and what has arrived of it.

    Attributes:
        query: The query.
        application: As it was when the decision was made.
        decision: Whom to ask.
        weights: Trust in each candidate at the decision.
        rows: The query's rows, converted.
        outputs: Output or OPEN, by model index and row.
        latency_s: Seconds from the decision to the last output, by model index.
        cached: Whether all outputs so far came from the cache, by model index.
        open_slots: How many slots are unfilled.
        answered: Whether the answer was given; what arrives later only feeds the cache.
        deadline_s: When to answer with what is there, seconds since the epoch.
        owned: Cache keys that this query was the first to ask for, and that are still in flight.
        life: Where the query is in its life.
    """

    __slots__ = (
        "answered",
        "application",
        "asked_at_s",
        "cached",
        "count",
        "deadline_s",
        "decision",
        "failures",
        "latency_s",
        "life",
        "open_slots",
        "outputs",
        "owned",
        "query",
        "rows",
        "weights",
    )

    def __init__(
        self,
        life: Life,
        application: Application,
        decision: Decision,
        weights: Mapping[str, float],
        rows: Any,
        *,
        deadline_s: float,
        now_s: float,
    ) -> None:
        models = len(decision.models)
        self.life, self.query = life, life.query
        self.application, self.decision, self.weights = application, decision, weights
        self.rows, self.deadline_s, self.asked_at_s = rows, deadline_s, now_s
        self.count = len(self.query.rows)
        self.outputs: list[list[Any]] = [[OPEN] * self.count for _ in range(models)]
        self.latency_s = [0.0] * models
        self.cached = [True] * models
        self.failures: dict[int, tuple[str, str]] = {}
        self.open_slots = models * self.count
        self.answered = False
        self.owned: dict[bytes, None] = {}

    def fill(self, model: int, row: int, output: Any, now_s: float, *, cached: bool) -> bool:
        """Put an output into its slot; True when that was the last open one."""
        slots = self.outputs[model]
        if slots[row] is not OPEN or self.answered:
            return False
        slots[row] = output
        if not cached:
            self.cached[model] = False
            self.latency_s[model] = now_s - self.asked_at_s
        return self._filled()

    def fail(self, model: int, row: int, reason: str, explanation: str) -> bool:
        """Mark a slot as failed; True when that was the last open one."""
        slots = self.outputs[model]
        if slots[row] is not OPEN or self.answered:
            return False
        slots[row] = None
        self.failures.setdefault(model, (reason, explanation))
        return self._filled()

    def failure(self, model: int) -> tuple[str, str] | None:
        """Why the model does not count: (`late` or `error`, explanation); None when it does."""
        if model in self.failures:
            return self.failures[model]
        if self.open_slots and any(slot is OPEN for slot in self.outputs[model]):
            return "late", "no output by the deadline"
        return None

    def _filled(self) -> bool:
        self.open_slots -= 1
        return self.open_slots == 0


@dataclass(frozen=True, slots=True)
class Slot:
    """One row of one model of one query."""

    pending: Pending
    model: int
    row: int

    @property
    def wanted(self) -> bool:
        """Whether an output still changes the answer."""
        return not self.pending.answered and self.pending.outputs[self.model][self.row] is OPEN

    @property
    def input(self) -> Any:
        """The row itself."""
        return self.pending.rows[self.row]
