"""What the log says about the guardrails of one trial, decision by decision.

Rules of this file:
- Scores are in [0, 1], greater ones are worse. With a margin that of the models' answer to the query is taken away; a
  metric in feedback is about the given answer alone, and so compared by who was drawn.
- What the log has at once counts by the second: a host that stalls makes many queries slow, and that is one event.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeAlias

from clipper_agents.rollout.comparison_spec import ComparisonSpec
from clipper_agents.rollout.query_losses import QueryLosses, compared_models
from clipper_stream.feedback.update import LoggedDecision
from clipper_stream.sequential_testing.guardrails import GuardrailEvidence
from clipper_stream.sequential_testing.rollout_rule import TrialRule, not_as_logged, not_believed, numbers_of
from clipper_stream.sequential_testing.score_sums import MOST_AT_BOUND
from clipper_stream.sequential_testing.trial_evidence import Kind, Misses, OpenDecision, TrialDecision, TrialEvidence
from clipper_topics.manifests import MEASURED, Guardrail
from clipper_topics.prediction import Missing, ModelAnswer

Asked: TypeAlias = Mapping[str, ModelAnswer | Missing]
"""What the log has of each version that was asked about a query."""
P99 = 0.01
"""Share of the queries of which the answer may be later than the bound of the 99th percentile."""


class OpenMetric(NamedTuple):
    """A decision that waits for a metric in its feedback."""

    of: Guardrail
    evidence: TrialEvidence
    opened: OpenDecision

    def learn(self, losses: QueryLosses, _: Kind) -> None:
        said = losses.metrics.get(self.of.metric)
        if said is None or self.of.range is None:
            self.give_up()
            return
        low, high = self.of.range
        value, beyond = (min(max(said, low), high) - low) / (high - low), float(not low <= said <= high)
        value = 1.0 - value if self.of.better == "higher" else value
        trial, answer = (value, None) if self.opened.decision.asked else (None, value)
        self.evidence.learn(self.opened, "reward", trial, answer, Misses(beyond, beyond))

    def give_up(self) -> None:
        self.evidence.give_up(self.opened)


class TrialGuardrails:
    """The evidence about the guardrails of the trial of `ref`; feedback comes within a horizon."""

    def __init__(self, ref: str, spec: ComparisonSpec, horizon_s: float) -> None:
        self._ref, self._spec, self._horizon_s = ref, spec, horizon_s
        window_s = spec.context_window_s or 0.0
        evidence = partial(TrialEvidence, horizon_s=horizon_s, sampled=spec.sampled, window_s=window_s)
        self._evidence = [(one, evidence(margin=(one.margin or P99) / abs(self._unit(one)))) for one in spec.guardrails]

    def next_step(self) -> None:
        for _, evidence in self._evidence:
            evidence.next_step()

    def decide(
        self, seen: TrialDecision, decision: LoggedDecision, asked: Asked, *, of_step: bool
    ) -> Iterator[OpenMetric]:
        """Take in a decision; what waits for its feedback."""
        for one, evidence in self._evidence:
            if one.metric in MEASURED:
                if seen.asked and (value := self._compared(one, decision, asked)) is not None:
                    for sums in (evidence.whole, *[evidence.step] * of_step):
                        sums.add_query(seen.second, value)
                        sums.settle(seen.second - self._horizon_s)
            elif seen.canary:
                drawn = replace(seen, answer_known=False, scored=True, silent=False, models_silent=False)
                if (opened := evidence.decide(drawn, of_step=of_step)) is not None:
                    yield OpenMetric(one, evidence, opened)

    def found(self, before: int | None) -> list[GuardrailEvidence]:
        """What is known of each, without the seconds from `before` on."""
        return [
            GuardrailEvidence(
                name=one.name,
                whole=evidence.whole.capital(before),
                step=evidence.step.capital(before),
                unit=self._unit(one),
                waits_for=self._unpriced(one) or _unusable(evidence, before),
            )
            for one, evidence in self._evidence
        ]

    def _unpriced(self, of: Guardrail) -> str:
        refs = [ref for ref, cost in self._spec.costs.items() if cost is None and of.metric == "cost"]
        return f"{', '.join(refs)} declares no cost" if refs else ""

    def _unit(self, of: Guardrail) -> float:
        """What a score of 1 is in the metric's unit: no value is greater; negative where higher values are good."""
        if of.range is not None:
            return (of.range[1] - of.range[0]) * (-1.0 if of.better == "higher" else 1.0)
        return max(of.margin or 0.0, sum(filter(None, self._spec.costs.values()))) if of.metric == "cost" else 1.0

    def _compared(self, of: Guardrail, decision: LoggedDecision, asked: Asked) -> float | None:
        own, compared = self._value(of, decision, (self._ref,), asked), compared_models(decision, self._spec.candidates)
        other = 0.0 if of.margin is None else self._value(of, decision, compared, asked)
        return None if own is None or other is None else (own - other) / self._unit(of)

    def _value(self, of: Guardrail, decision: LoggedDecision, refs: tuple[str, ...], asked: Asked) -> float | None:
        """What an answer by these versions is worth: the sum of their costs; else it is as good as the best of them."""
        if of.metric == "defaults" and refs == decision.served:
            return float(decision.default)
        values = [_measured(of, asked[ref], self._spec.costs.get(ref) or 0.0) for ref in refs if ref in asked]
        return (sum if of.metric == "cost" else min)(values) if values else None


def _measured(of: Guardrail, said: ModelAnswer | Missing, cost: float) -> float:
    reasons = [said.reason] if isinstance(said, Missing) else [row.reason for row in said.missing_rows]
    if of.metric == "cost":
        return 0.0 if getattr(said, "cached", False) else cost
    if of.metric == "latency":
        return float("late" in reasons or getattr(said, "latency_ms", 0.0) > (of.bound_ms or 0.0))
    return float("error" in reasons if of.metric == "errors" else isinstance(said, Missing))


def _unusable(evidence: TrialEvidence, before: int | None) -> str:
    known, beyond = (sum(side[at] for side in evidence.at_bound.values()) for at in (0, 1))
    if beyond > MOST_AT_BOUND * known:
        return f"{beyond / known:.1%} of its values are beyond its range: declare a wider one"
    rule, whole = TrialRule(margin=evidence.whole.margin), evidence.whole.capital(before)
    numbers = numbers_of(rule, evidence, whole)
    return not_as_logged(evidence, before) or not_believed(rule, whole, evidence, numbers) or ""
