"""An application as the router knows it: its manifest, resolved."""

from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

from clipper_stream.models.row_spec import RowSpec
from clipper_stream.selection.contextual import ContextualChoice
from clipper_stream.selection.distribution import ActionDistribution, audited
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState
from clipper_stream.selection.trials import NOBODY, PolicyChoice, context_number, with_trials


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateModel:
    """One model version that an application may ask.

    Attributes:
        digest: `caching.keys.version_digest` of the version: other bytes, other digest, no stale answer.
        deterministic: Whether its outputs may be cached and shared between identical rows.
    """

    ref: str
    digest: bytes
    deterministic: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialModel:
    """One model version that an application tries beside its candidates, on a share of the queries in [0, 1].

    A `shadow` is asked for the log only; a `canary` answers instead of the policy's choice, and is a shadow of
    `shadow_share` besides.
    """

    candidate: CandidateModel
    stage: Literal["shadow", "canary"]
    share: float
    shadow_share: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Application:
    """What one application asks, which models, how fast, and its answer when none of them answers.

    Attributes:
        candidates: The models that exist, in the application's order.
        trials: The versions on trial that exist.
        draws_contexts: Whether a context, not each of its queries, draws whether a canary answers it.
        revision: Of its manifest; logged with each decision.
        learning_config: Digest of policy and loss, to log where they take effect; None: it is not logged.
        objective_s: Latency objective in seconds; None: throughput mode.
        default_output: Given when no model answered in time, or when they agreed too little.
        confidence_threshold: Below it the default output is given, in [0, 1].
        audit_ratio: Share of queries that ask all candidates, in [0, 1].
        seed: Seeds, with the query's id, every choice.
        input_features: How many of the first numbers of a one-row numeric input are the features of a query that gives
            none itself.
    """

    name: str
    candidates: tuple[CandidateModel, ...]
    policy: SelectionPolicy
    trials: tuple[TrialModel, ...] = ()
    draws_contexts: bool = False
    spec: RowSpec = field(default_factory=RowSpec)
    revision: int = 1
    combiner: str = "vote"
    loss: str = "zero_one"
    learning_config: int | None = None
    objective_s: float | None = 0.1
    default_output: Any = None
    confidence_threshold: float = 0.0
    audit_ratio: float = 0.0
    seed: int = 0
    input_features: int = 0

    @cached_property
    def by_ref(self) -> dict[str, CandidateModel]:
        tried_ones = (trial.candidate for trial in self.trials)
        return {candidate.ref: candidate for candidate in (*self.candidates, *tried_ones)}

    @cached_property
    def refs(self) -> tuple[str, ...]:
        return tuple(candidate.ref for candidate in self.candidates)

    @cached_property
    def answers(self) -> bool:
        """Whether a model can answer: a candidate, or a canary."""
        return bool(self.refs or self._shares("canary"))

    def choice(self, state: SelectionState, context: str | None = None) -> PolicyChoice:
        """The policy's choice, with audits and trials; a `ContextualChoice` where it looks at features."""
        if not self.refs:
            return self._completed(context, NOBODY)
        by_features = self.policy.by_features(state, self.refs)
        if by_features is None:
            return self._completed(context, self.policy.prepare(state, self.refs))
        if self.policy.asks_again:  # what is asked besides is asked with the first model
            first = self._completed(context, by_features.otherwise)
            return ContextualChoice(otherwise=first, choices=by_features.choices, place=by_features.place)
        return by_features.each(partial(self._completed, context))

    def _completed(self, context: str | None, chosen: ActionDistribution) -> PolicyChoice:
        if self.refs and self.audit_ratio > 0:
            chosen = audited(chosen, self.audit_ratio)
        if not self.trials:
            return chosen
        number_of, besides = None, {one.candidate.ref: one.shadow_share for one in self.trials if one.stage == "canary"}
        if self.draws_contexts and context is not None:
            number_of = partial(context_number, self.seed, self.name, context=context)
        return with_trials(chosen, self._shares("canary"), self._shares("shadow") | besides, number_of)

    def _shares(self, stage: str) -> dict[str, float]:
        return {trial.candidate.ref: trial.share for trial in self.trials if trial.stage == stage}

    def candidate_ref(self, model: str) -> str | None:
        """The reference of the candidate that a query calls `name:version`, or `name`, which is the first of that name.

        A version on trial is no candidate.
        """
        if model in self.refs:
            return model
        return next((ref for ref in self.refs if ref.partition(":")[0] == model), None)
