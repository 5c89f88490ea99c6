"""Evidence about the versions of one application, and what its rules decide by it: a fold over decisions and feedback.

Rules of this file:
- The revision under which a query was decided says which evidence it belongs to, and with which probability a trial was
  asked, not the time at which it was read. So the evidence at a place in the logs is the same, read live or again.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from clipper_agents.rollout.comparison_spec import ComparisonSpec, TrialShare, TrialSpec
from clipper_agents.rollout.decisions import RolloutDecision
from clipper_agents.rollout.query_losses import QueryLosses, apart, compared_models
from clipper_stream.feedback.update import LoggedDecision
from clipper_stream.selection.trials import context_number
from clipper_stream.sequential_testing.keep_best import CandidateLosses, OpenComparison
from clipper_stream.sequential_testing.rollout_rule import TrialVerdict, judge
from clipper_stream.sequential_testing.score_sums import Capital
from clipper_stream.sequential_testing.trial_evidence import Kind, Misses, OpenDecision, TrialDecision, TrialEvidence
from clipper_topics.comparison import Comparison

LIVE = "live"
"""Stage of a candidate."""
ANSWERED_AFTER_MS = 1000.0
"""How long after its objective an answer, and its audit, may still be on their way into the log."""
NO_OBJECTIVE_MS = 60_000.0
SETTLED_AFTER_S = 60.0
"""After the horizon: a prediction, whose time the horizon is counted from, is later than its query."""
SAME_PROBABILITY = 1e-6
SCALE_LABELS = 200
"""A difference that one label in fifty shows is among so many, but for two trials in a hundred."""


class OpenTrial(NamedTuple):
    """A decision that waits for its feedback, in the evidence about one trial."""

    evidence: TrialEvidence
    model: str
    opened: OpenDecision

    def learn(self, losses: QueryLosses, kind: Kind) -> None:
        own = None if self.model in losses.silent else losses.models.get(self.model)
        misses = Misses(losses.at_bound.get(self.model, 0.0), losses.answer_at_bound, losses.largest)
        self.evidence.learn(self.opened, kind, own, losses.answer, misses)

    def give_up(self) -> None:
        self.evidence.give_up(self.opened)


class OpenCandidates(NamedTuple):
    """The same, in the evidence about the candidates."""

    evidence: CandidateLosses
    opened: OpenComparison

    def learn(self, losses: QueryLosses, _: Kind) -> None:
        self.evidence.learn(self.opened, losses.models, losses.chances, losses.at_bound)

    def give_up(self) -> None:
        self.evidence.give_up(self.opened)


Opened: TypeAlias = OpenTrial | OpenCandidates


@dataclass(slots=True)
class _Trial:
    spec: TrialSpec
    evidence: TrialEvidence
    margins: tuple[float, float]


class ApplicationEvidence:
    """What the log says about the versions of one application that `spec` compares now.

    Attributes:
        mismatched: Decisions whose logged probability of asking a trial is not its share, or whose context drew another
            version.
    """

    def __init__(self, spec: ComparisonSpec, horizon_s: float) -> None:
        self.spec, self._horizon_s = spec, horizon_s + SETTLED_AFTER_S
        self.mismatched = 0
        self._trials: dict[str, _Trial] = {}
        self._losses = self._candidates()
        self.follow(spec)

    def follow(self, spec: ComparisonSpec) -> None:
        """Compare what a new revision says; what is compared as before keeps its evidence."""
        before, self.spec = self.spec, spec
        self._trials = {one.trial.model: self._trial(one) for one in spec.trials}
        if _candidates_of(before) != _candidates_of(spec):
            self._losses = self._candidates()

    def decide(
        self,
        revision: int,
        decision: LoggedDecision,
        failed: Collection[str],
        asked_ms: int,
    ) -> list[Opened]:
        """Take in what was decided about a query; what waits for its feedback."""
        found: list[Opened] = []
        if revision >= self.spec.candidates_since:
            compared = self._losses.decide(asked_ms // 1000, decision.propensities, decision.unanswered)
            found.append(OpenCandidates(self._losses, compared))
        for ref, trial in self._trials.items():
            seen = self._seen(trial, revision, decision, failed, asked_ms // 1000)
            if seen is not None and decision.context is not None and self.spec.context_window_s is not None:
                seen = self._drawn_once(seen, ref, trial.spec.shares[revision], decision.context)
            if seen is not None:
                opened = trial.evidence.decide(seen, of_step=revision >= trial.spec.step_since)
                if opened is not None:
                    found.append(OpenTrial(trial.evidence, ref, opened))
        return found

    def decisions(self, newest_ms: int | None = None) -> Iterator[RolloutDecision]:
        """The changes that the rules ask for: of trials in their order, then of candidates.

        The newest record that was read is of `newest_ms`; None: all that there is was read.
        """
        before = None if newest_ms is None else int(newest_ms - self._answered_within_ms) // 1000
        decided = partial(RolloutDecision, application=self.spec.application, revision=self.spec.revision)
        for ref, trial in self._trials.items():
            if trial.spec.trial.automatic:
                verdict, largest = self._judged(trial, before), trial.evidence.largest
                if self.spec.learns_scale and _labels(trial) >= SCALE_LABELS and largest > 1.0:
                    why = f"of the first {SCALE_LABELS} labels one was missed by {largest:g}"
                    numbers = {"loss_scale": _rounded_up(largest), "largest": largest}
                    yield decided(command="scale", model=ref, why=why, numbers=numbers)
                elif (action := verdict.action) != "wait":
                    why, numbers = verdict.why, dict(verdict.numbers)
                    yield decided(command=action, model=ref, share=verdict.share, why=why, numbers=numbers)
        if self.spec.keep_best is not None:
            found = self._losses.worst(self.spec.keep_best, self.spec.rule.confidence, before)
            if found is not None:
                yield decided(command="retire", model=found.model, why=found.why, numbers=found.numbers)

    def comparisons(self) -> list[Comparison]:
        """How each version stands, trials first."""
        trials = []
        for ref, one in self._trials.items():
            verdict, losses = self._judged(one, None), one.evidence.losses.capital()
            trials.append(self._comparison(ref, one.spec.trial.stage, losses.scores, losses, verdict))
        candidates = (
            self._comparison(ref, LIVE, count, self._losses.capital(ref))
            for ref, count in self._losses.feedbacks.items()
        )
        return [*trials, *candidates]

    @property
    def _answered_within_ms(self) -> float:
        objective_ms = self.spec.objective_ms
        return ANSWERED_AFTER_MS + (NO_OBJECTIVE_MS if objective_ms is None else objective_ms)

    def _judged(self, trial: _Trial, before: int | None) -> TrialVerdict:
        of = trial.spec.trial
        rule = replace(self.spec.rule, attempt=trial.spec.attempt, at_once=trial.spec.at_once)
        verdict = judge(rule, of.stage, of.share, trial.evidence, before)
        measured = not self.spec.learns_scale or trial.evidence.kind == "reward" or _labels(trial) >= SCALE_LABELS
        if measured or verdict.action in ("wait", "abort"):
            return verdict
        why = f"{_labels(trial)} labels about it, of {SCALE_LABELS} that show the scale of its losses: give loss_scale"
        return replace(verdict, action="wait", share=None, why=why)

    def _seen(
        self, trial: _Trial, revision: int, decision: LoggedDecision, failed: Collection[str], second: int
    ) -> TrialDecision | None:
        """The decision as the trial sees it; None where it says nothing: the trial was not drawn for, or nobody was.

        A version without a host is not drawn for, and another canary may have served in the place of both.
        """
        ref, share = trial.spec.trial.model, trial.spec.shares.get(revision)
        if revision < trial.spec.since or share is None:
            return None
        candidates = self.spec.candidates
        if share.canary and any(one != ref and one not in candidates for one in decision.served):
            return None
        asked, drawn = ref in decision.propensities, 1.0 - share.others - share.besides
        if asked and abs(decision.propensities[ref] - share.share - share.besides) > SAME_PROBABILITY:
            self.mismatched += 1
            return None
        canary = share.canary and not (asked and ref not in decision.served)
        if canary and drawn <= 0.0:
            return None
        if not asked and not (canary and _drawn(decision, share)):
            trial.evidence.pass_over(second, share.share)
            return None
        models = compared_models(decision, candidates)
        return TrialDecision(
            second=second,
            share=share.probability(redrawn=False),
            asked=asked,
            canary=canary,
            answer_known=self.spec.lone or not canary,
            scored=len(models) == 1 or not self.spec.lone,
            silent=ref in decision.unanswered,
            failed=ref in failed,
            models_silent=decision.unanswered.issuperset(models),
            apart=apart(decision, ref, models, self.spec.loss),
            context=decision.context or "",
        )

    def _drawn_once(self, seen: TrialDecision, ref: str, share: TrialShare, context: str) -> TrialDecision | None:
        """The same decision, which the context has drawn; None where it drew another.

        One that had the trial at an earlier share drew nothing at this one, and scores nothing.
        """
        number = context_number(share.seed, self.spec.application, ref, context)
        if not seen.canary:
            return replace(seen, context_drawn=number)
        if seen.asked != (number < share.part):
            self.mismatched += 1
            return None
        if not share.before <= number or share.part <= share.before:
            return replace(seen, canary=False, scored=False)
        return replace(seen, context_drawn=share.part + number, share=share.probability(redrawn=True))

    def _comparison(
        self, model: str, stage: str, feedbacks: int, losses: Capital, verdict: TrialVerdict | None = None
    ) -> Comparison:
        numbers: Mapping[str, Any] = {"lower": -1.0, "upper": 1.0} if verdict is None else verdict.numbers
        return Comparison(
            application=self.spec.application,
            model=model,
            stage=stage,
            feedbacks=feedbacks,
            loss=None if losses.mean is None or not feedbacks else min(1.0, max(0.0, losses.mean)),
            loss_lower=max(0.0, losses.lower(self.spec.rule.alpha)),
            loss_upper=min(1.0, losses.upper(self.spec.rule.alpha)),
            waits_for="" if verdict is None else _waits_for(verdict),
            **{name: value for name, value in numbers.items() if name in Comparison.__struct_fields__},
        )

    def _candidates(self) -> CandidateLosses:
        return CandidateLosses(self.spec.candidates, self._horizon_s, sampled=self.spec.sampled)

    def _trial(self, spec: TrialSpec) -> _Trial:
        known, rule = self._trials.get(spec.trial.model), self.spec.rule
        margins = rule.margin, rule.relative
        if known is None or known.spec.since != spec.since or known.margins != margins:
            evidence = TrialEvidence(
                *(rule.margin, self._horizon_s),
                sampled=self.spec.sampled,
                relative=rule.relative,
                plan=rule.plan,
                window_s=self.spec.context_window_s or 0.0,
                answered_within_s=math.ceil(self._answered_within_ms / 1000),
            )
            return _Trial(spec, evidence, margins)
        if known.spec.step_since != spec.step_since:
            known.evidence.next_step()
        return _Trial(spec, known.evidence, margins)


def _labels(trial: _Trial) -> int:
    return trial.evidence.at_bound["trial"][0]


def _rounded_up(number: float) -> float:
    digit = 10.0 ** math.floor(math.log10(number))
    return math.ceil(number / digit) * digit


def _drawn(decision: LoggedDecision, share: TrialShare) -> bool:
    """Whether the canary could have served: the models served with what it and the others leave of the probability.

    An audit asks models that do not serve, so the probability of being asked is larger than that of serving. Where all
    queries are audited it says nothing.
    """
    if share.audited == 1.0:
        return True
    asked = min((decision.propensities[one] for one in decision.served), default=1.0)
    chosen = (asked - share.audited) / (1.0 - share.audited)
    return abs(decision.probability - (1.0 - share.share - share.others) * chosen) <= SAME_PROBABILITY


def _candidates_of(spec: ComparisonSpec) -> tuple[object, ...]:
    return spec.candidates_since, spec.candidates, spec.rule.confidence, spec.sampled


def _waits_for(verdict: TrialVerdict) -> str:
    if verdict.action == "wait":
        return verdict.why
    done = {"step": f"stepped up to {verdict.share or 0.0:.3%}", "promote": "promoted", "abort": "aborted"}
    return f"it is to be {done[verdict.action]}: {verdict.why}"


def followed(
    known: Mapping[str, ApplicationEvidence], specs: Mapping[str, ComparisonSpec], horizon_s: float
) -> dict[str, ApplicationEvidence]:
    """Evidence of the applications that are compared now; known evidence goes on."""
    found = {}
    for name, spec in specs.items():
        before = known.get(name)
        if before is None or before.spec.revision > spec.revision:  # a deleted application begins anew
            found[name] = ApplicationEvidence(spec, horizon_s)
        else:
            before.follow(spec)
            found[name] = before
    return found
