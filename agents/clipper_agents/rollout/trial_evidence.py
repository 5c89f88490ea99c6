"""Evidence about the versions of one application, and what its rules decide by it: a fold over scored queries.

Rules of this file:
- The revision under which a query was decided says which evidence it belongs to, not the time at which it was read. So
  the evidence at a place in the logs is the same, read live or read again after a restart.
- A candidate's record begins with its first answer: before it, a host is starting, and that is no reason to retire it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clipper_agents.rollout.comparison_spec import ComparisonSpec, TrialSpec
from clipper_agents.rollout.decisions import Command, RolloutDecision
from clipper_agents.rollout.query_losses import QueryLosses
from clipper_stream.sequential_testing.empirical_bernstein import EmpiricalBernstein
from clipper_stream.sequential_testing.evidence import DifferenceEvidence
from clipper_stream.sequential_testing.keep_best import losses_of_candidates, worst
from clipper_stream.sequential_testing.rollout_rule import TrialEvidence, TrialRule, judge

LIVE = "live"
"""Stage of a candidate."""
_NO_DIFFERENCE = DifferenceEvidence.of(0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What feedback says about one version of an application, with intervals that hold at all times at once.

    Attributes:
        stage: `shadow`, `canary`, or `live` for a candidate.
        difference: Loss minus that of the answers, of a trial; None: not known, or a candidate. Its interval is from
            `lower` to `upper`, -1 and 1 when nothing is known.
        loss: Mean of its own losses, in [0, 1], with the interval from `loss_lower` to `loss_upper`; None: not known.
    """

    application: str
    model: str
    stage: str
    feedbacks: int
    difference: float | None
    lower: float
    upper: float
    loss: float | None
    loss_lower: float
    loss_upper: float


@dataclass(slots=True)
class _Trial:
    spec: TrialSpec
    made_with: tuple[float, int]
    evidence: TrialEvidence


class ApplicationEvidence:
    """What feedback says about the versions of one application that `spec` compares now."""

    def __init__(self, spec: ComparisonSpec) -> None:
        self.spec = spec
        self._trials: dict[str, _Trial] = {}
        self._losses: dict[str, EmpiricalBernstein] = {}
        self.follow(spec)

    def follow(self, spec: ComparisonSpec) -> None:
        """Compare what a new revision says; what is compared as before keeps its evidence."""
        before, self.spec = self.spec, spec
        self._trials = {one.trial.model: self._trial(one, spec.rule) for one in spec.trials}
        if _candidates_of(before) != _candidates_of(spec) or not self._losses:
            first = losses_of_candidates(max(1, len(spec.candidates)), spec.rule.confidence)
            self._losses = dict.fromkeys(spec.candidates, first)

    def observe(self, revision: int, losses: QueryLosses) -> None:
        """Take in one query that was decided under this revision."""
        for ref, trial in self._trials.items():
            if revision >= trial.spec.since:
                of_step = revision >= trial.spec.step_since
                trial.evidence = trial.evidence.observe(losses.models.get(ref), losses.answer, of_step=of_step)
        if revision >= self.spec.candidates_since:
            for ref in losses.models.keys() & self._losses.keys():
                if self._losses[ref].count or ref not in losses.silent:
                    self._losses[ref] = self._losses[ref].observe(losses.models[ref])

    def decisions(self) -> Iterator[RolloutDecision]:
        """The changes that the rules ask for: of trials in their order, then of candidates."""
        for ref, trial in self._trials.items():
            if (of := trial.spec.trial).automatic:
                verdict = judge(self.spec.rule, of.stage, of.share, trial.evidence)
                if verdict.action != "wait":
                    yield self._decided(
                        verdict.action, ref, why=verdict.why, numbers=verdict.numbers, share=verdict.share
                    )
        if self.spec.keep_best is not None:
            found = worst(self._losses, self.spec.keep_best, self.spec.rule.confidence)
            if found is not None:
                yield self._decided("retire", found.model, why=found.why, numbers=found.numbers)

    def comparisons(self) -> list[Comparison]:
        """How each version stands, trials first."""
        name = self.spec.application
        trials = [
            _comparison(name, ref, one.spec.trial.stage, one.evidence.losses, one.evidence.whole)
            for ref, one in self._trials.items()
        ]
        return [*trials, *(_comparison(name, ref, LIVE, losses) for ref, losses in self._losses.items())]

    def _decided(
        self,
        command: Command,
        model: str,
        *,
        why: str,
        numbers: Mapping[str, Any],
        share: float | None = None,
    ) -> RolloutDecision:
        return RolloutDecision(
            command=command,
            application=self.spec.application,
            model=model,
            revision=self.spec.revision,
            share=share,
            why=why,
            numbers=numbers,
        )

    def _trial(self, spec: TrialSpec, rule: TrialRule) -> _Trial:
        made_with = rule.alpha_of_trial, len(rule.steps)
        known = self._trials.get(spec.trial.model)
        if known is None or known.spec.since != spec.since or known.made_with != made_with:
            return _Trial(spec, made_with, TrialEvidence.of(rule))
        stepped = known.spec.step_since != spec.step_since
        return _Trial(spec, made_with, known.evidence.at_next_step(rule) if stepped else known.evidence)


def _candidates_of(spec: ComparisonSpec) -> tuple[object, ...]:
    return spec.candidates_since, spec.candidates, spec.rule.confidence


def _comparison(
    application: str,
    model: str,
    stage: str,
    losses: EmpiricalBernstein,
    difference: DifferenceEvidence = _NO_DIFFERENCE,
) -> Comparison:
    return Comparison(
        application=application,
        model=model,
        stage=stage,
        feedbacks=losses.count,
        difference=difference.difference,
        lower=difference.lower,
        upper=difference.upper,
        loss=losses.mean if losses.count else None,
        loss_lower=losses.lower,
        loss_upper=losses.upper,
    )


def followed(
    known: Mapping[str, ApplicationEvidence], specs: Mapping[str, ComparisonSpec]
) -> dict[str, ApplicationEvidence]:
    """Evidence of the applications that are compared now; known evidence goes on."""
    found = {}
    for name, spec in specs.items():
        before = known.get(name)
        if before is None or before.spec.revision > spec.revision:  # a deleted application begins anew
            found[name] = ApplicationEvidence(spec)
        else:
            before.follow(spec)
            found[name] = before
    return found
