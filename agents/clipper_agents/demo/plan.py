"""The plan of a demo: how many queries, how fast, when a model fails, and which policies choose."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from clipper_stream.errors import InvalidSetting

DEFAULT_QUERIES, DEFAULT_RATE_PER_S = 20_000, 250.0
"""Eighty seconds of traffic: 750 rows a second through five models, Kafka and a router, which two cores can carry."""
LEAST_QUERIES = 400
"""Fewer say nothing: a phase of one application would have fewer than 50."""

POLICIES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Both must forget, or the repaired model would have to be good for as long as it was broken. A half-life of 100
        # feedbacks in each of 4 partitions is a memory of about 580. exp3 scores one model a query, so it needs that
        # much to tell 3 % errors from 4 %; it comes back some 2,000 queries after the repair.
        "exp3": MappingProxyType({"eta": 0.2, "exploration": 0.05, "half_life": 100.0}),
        # exp4 scores all five, so a memory of 170 will do, and it comes back after some 900. Shorter still, and bad
        # luck would pass for a bad model.
        "exp4": MappingProxyType({"eta": 0.3, "half_life": 30.0}),
    }
)
"""Parameters by policy; each has an application of its own, and queries go to the applications in turn."""

BEFORE, FAILED, RESTORED = "before", "failed", "restored"
PHASES = (BEFORE, FAILED, RESTORED)
"""Phases of a run, by the index of a query."""
FAILS_AT, RESTORED_AT = 0.25, 0.5
"""Shares of the stream after which the best model breaks and is repaired."""
OBJECTIVE_MS = 500
"""Of both applications: generous, since seven processes share the machine with whatever else runs there, and a late
answer would be an error that tells nothing about the models."""
PHASE_TITLES = {BEFORE: "healthy", FAILED: "failed", RESTORED: "restored"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan:
    """One run.

    Attributes:
        queries: Queries to both applications together, alternating.
        rate_per_s: Queries a second, evenly spaced; fewer where the machine cannot carry them.
        seed: Seeds data, models, traffic and decisions.

    Raises:
        InvalidSetting: too few queries, or no rate.
    """

    queries: int = DEFAULT_QUERIES
    rate_per_s: float = DEFAULT_RATE_PER_S
    seed: int = 0

    def __post_init__(self) -> None:
        if self.queries < LEAST_QUERIES:
            raise InvalidSetting(f"queries is {self.queries}: give at least {LEAST_QUERIES}")
        if not self.rate_per_s > 0:
            raise InvalidSetting(f"rate is {self.rate_per_s}: give a number above 0, in queries a second")

    @property
    def edges(self) -> tuple[int, int, int, int]:
        """First query of each phase, and the end."""
        return 0, round(self.queries * FAILS_AT), round(self.queries * RESTORED_AT), self.queries

    def phase_of(self, query: int) -> str:
        """The phase that a query belongs to.

        >>> plan = DemoPlan(queries=400)
        >>> [plan.phase_of(query) for query in (0, 99, 100, 199, 200, 399)]
        ['before', 'before', 'failed', 'failed', 'restored', 'restored']
        """
        return PHASES[sum(query >= edge for edge in self.edges[1:-1])]


def application_of(policy: str) -> str:
    """Name of the application that a policy has."""
    return f"digits-{policy}"
