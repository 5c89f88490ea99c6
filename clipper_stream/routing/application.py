"""An application as the router knows it: its manifest, resolved."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from clipper_stream.inputs import InputSpec
from clipper_stream.selection.policy import SelectionPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One model version that an application may ask.

    Attributes:
        ref: `name:version`.
        digest: `caching.keys.version_digest` of the version: other bytes, other digest, no stale answer.
        deterministic: Whether its outputs may be cached and shared between identical rows.
    """

    ref: str
    digest: bytes
    deterministic: bool = True


@dataclass(frozen=True, kw_only=True)
class Application:
    """What one application asks, of whom, how fast, and what it says when nobody answers.

    Attributes:
        name: Its name.
        revision: Of its manifest; logged with each decision.
        spec: What one row of input looks like.
        candidates: The models that exist, in the application's order.
        policy: Who chooses among them.
        combiner: Name of the combiner.
        loss: Name of the loss.
        objective_s: Latency objective in seconds; None: throughput mode.
        default_output: Given when no model answered in time, or when they agreed too little.
        confidence_threshold: Below it the default output is given, in [0, 1].
        audit_ratio: Share of queries that ask all candidates, in [0, 1].
        seed: Seeds, with the query's id, every choice.
    """

    name: str
    candidates: tuple[Candidate, ...]
    policy: SelectionPolicy
    spec: InputSpec = field(default_factory=InputSpec)
    revision: int = 1
    combiner: str = "vote"
    loss: str = "zero_one"
    objective_s: float | None = 0.1
    default_output: Any = None
    confidence_threshold: float = 0.0
    audit_ratio: float = 0.0
    seed: int = 0

    @cached_property
    def by_ref(self) -> dict[str, Candidate]:
        """The candidates by reference."""
        return {candidate.ref: candidate for candidate in self.candidates}

    @cached_property
    def refs(self) -> tuple[str, ...]:
        """References of the candidates, in order."""
        return tuple(candidate.ref for candidate in self.candidates)

    def named(self, model: str) -> str | None:
        """The reference that a query means by `name` or `name:version`; a bare name is the first candidate of it."""
        if model in self.by_ref:
            return model
        return next((ref for ref in self.refs if ref.partition(":")[0] == model), None)
