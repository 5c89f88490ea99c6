"""From sums to what is said: intervals, differences, which estimate to read first, and why to be careful.

Rules of this file:
- Of a candidate that stays as it is, DR is read first: it is unbiased as IPS is, and mostly of less variance. Where few
  decisions carry it, one of them moves it by more than any loss: SNDR is read first then. Where its choices have no
  support it leans on predictions alone, as any estimate must; the warning says so.
- Of one that learns, the simulation is read first where the losses of all models are known, else rejection.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from statistics import NormalDist

import numpy as np

from clipper_stream.evaluation.candidate_sums import ON_POLICY, BinnedSums, CandidateSums
from clipper_stream.evaluation.candidates.candidate import StationaryCandidate
from clipper_stream.evaluation.estimators.block_sums import BlockSums
from clipper_stream.evaluation.estimators.intervals import bootstrap, bootstrap_difference
from clipper_stream.evaluation.estimators.registry import make_estimators
from clipper_stream.evaluation.estimators.support import NEVER_ASKED, SupportSums
from clipper_stream.evaluation.log.columns import Floats
from clipper_stream.evaluation.log_summary import LogOutline, LogSummary
from clipper_stream.evaluation.question import Question
from clipper_stream.evaluation.replicates import SIMULATION, Replicate
from clipper_stream.evaluation.results import NOTHING, CandidateResult, ContextResult, Estimate, EvidenceSize

WITHOUT_BIAS = "which does not show its bias"
PREFERRED = ("dr", "sndr", "snips", "ips", "dm")
SELF_NORMALIZED = ("sndr", "snips")
FEW_LEARNED = 0.2
"""Of the decisions with feedback: a candidate that learned from fewer is judged by its first steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summarizer:
    """Says what the sums of candidates amount to, beside those of what was logged.

    Attributes:
        drawn: What `draws` drew, the same for all candidates.
    """

    question: Question
    found: LogSummary
    logged: CandidateSums
    drawn: Floats
    confidence: float

    def of_logged(self) -> CandidateResult:
        sums = self.logged.estimates[ON_POLICY]
        return CandidateResult(
            name=" then ".join(self.found.outline.policies) or "nothing",
            kind="logged",
            headline=ON_POLICY,
            estimates={ON_POLICY: self._estimate(sums)},
            standing=EvidenceSize(used=sums.decisions),
            series=self.logged.spans.series(self.found.outline.timeline, self.logged.models, self.question.unit),
        )

    def of_stationary(self, candidate: StationaryCandidate, tally: CandidateSums) -> CandidateResult:
        support, outline = tally.support, self.found.outline
        assert support is not None
        headline = headline_of(tally)
        return CandidateResult(
            name=candidate.name,
            kind=candidate.kind,
            headline=headline,
            estimates=dict(self._estimates(tally)),
            difference=self._difference(tally.estimates[headline], tally.reference),
            standing=EvidenceSize(
                used=support.decisions,
                carrying=support.carrying,
                unsupported_ratio=support.unsupported_ratio,
            ),
            series=tally.spans.series(outline.timeline, tally.models, self.question.unit),
            contexts=self._contexts(tally),
            warnings=support.warnings(tally.models, outline.contexts),
            unknown=self._unknown(support.unknown_ratio),
        )

    def of_learning(self, name: str, courses: Sequence[Replicate]) -> CandidateResult:
        method, tallies = courses[0].method, [one.tally for one in courses]
        first, sums = tallies[0], [each.estimates[method] for each in tallies]
        known = [each for each in sums if math.isfinite(each.value)]
        supports = [each.support for each in tallies if each.support is not None]
        spans = reduce(BinnedSums.merged, (each.spans for each in tallies))
        return CandidateResult(
            name=name,
            kind="learning policy",
            headline=method,
            horizon=round(float(np.mean([one.learned for one in courses]))),
            estimates={method: _over_courses(map(self._estimate, known))},
            difference=_over_courses((self._difference(one, first.reference) for one in known), told=False),
            standing=EvidenceSize(
                used=courses[0].known,
                carrying=_carrying(sums, courses[0].known),
                unsupported_ratio=supports[0].unsupported_ratio,
            ),
            series=spans.series(self.found.outline.timeline, first.models, self.question.unit),
            contexts=self._contexts(first),
            warnings=tuple(_learning_warnings(courses, supports[0], self.found.outline)),
            unknown=self._unknown(max(one.unknown_ratio for one in supports)),
        )

    def _estimate(self, sums: BlockSums) -> Estimate:
        return bootstrap(sums, self.drawn, self.confidence).times(self.question.unit)

    def _difference(self, sums: BlockSums, reference: BlockSums) -> Estimate:
        return bootstrap_difference(sums, reference, self.drawn, self.confidence).times(self.question.unit)

    def _unknown(self, ratio: float) -> float:
        return self.question.unit * (ratio + self.found.censored.unknown_ratio)

    def _estimates(self, tally: CandidateSums) -> Iterator[tuple[str, Estimate]]:
        for one in make_estimators(list(tally.estimates)):
            found = self._estimate(tally.estimates[one.name])
            yield one.name, found if one.covers else replace(found, interval=f"{found.interval}, {WITHOUT_BIAS}")

    def _contexts(self, tally: CandidateSums) -> tuple[ContextResult, ...]:
        """The contexts that are looked at, when there are several; intervals are normal ones."""
        outline, unit, means = self.found.outline, self.question.unit, tally.contexts.mean
        if len(outline.largest_contexts) < 2:  # noqa: PLR2004 (one is the whole)
            return ()
        place = {name: number for number, name in enumerate(outline.contexts)}
        return tuple(
            ContextResult(
                context=name,
                decisions=int(tally.contexts.decisions[place[name]]),
                logged=unit * float(means[place[name]] - tally.differences.mean[place[name]]),
                candidate=unit * float(np.clip(means[place[name]], 0.0, 1.0)),
                difference=_of_context(tally.differences, place[name], self.question.confidence).times(unit),
            )
            for name in outline.largest_contexts
        )


def headline_of(tally: CandidateSums) -> str:
    """Which estimate of a candidate that does not learn is read first."""
    few = tally.support is not None and tally.support.few_carry
    first: tuple[str, ...] = SELF_NORMALIZED if few else ()
    return next(each for each in (*first, *PREFERRED, *tally.estimates) if each in tally.estimates)


def _learning_warnings(courses: Sequence[Replicate], support: SupportSums, outline: LogOutline) -> list[str]:
    if not any(course.known for course in courses):
        return [NEVER_ASKED]
    used = courses[0].tally.reference.decisions
    instead = "It is taken for as much as that of a coin until something is"
    missing = support.missing(courses[0].tally.models, outline.contexts, instead)
    said = [one for one in (missing, "" if missing else support.doubtful) if one]
    learned = float(np.mean([course.learned for course in courses])) / used
    if learned < FEW_LEARNED:
        said.append(
            f"it could learn from {learned:.1%} of the feedback only, so it is judged as if it learned so much more "
            "slowly than it would: switched on it does better, or as well. Set audit_ratio, and log again"
        )
    if courses[0].method == SIMULATION and courses[0].known < used:
        said.append(f"{courses[0].known:,} of {used:,} decisions were simulated, those that asked all its models")
    return said


def _over_courses(estimates: Iterable[Estimate], *, told: bool = True) -> Estimate:
    """Their mean, with an interval that holds all of theirs, and is told to be of several."""
    each = list(estimates)
    if not each:
        return NOTHING
    made_by = each[0].interval
    return Estimate(
        value=float(np.mean([one.value for one in each])),
        low=min(one.low for one in each),
        high=max(one.high for one in each),
        interval=f"{made_by} of {len(each)} courses" if told and len(each) > 1 else made_by,
    )


def _carrying(courses: Sequence[BlockSums], known: int) -> float:
    """Return how many decisions with a loss of the same mean would be known as exactly."""
    mean = replace(courses[0], blocks=np.asarray(sum(each.blocks for each in courses)) / len(courses))
    error, value = mean.standard_error, mean.value
    if not (math.isfinite(error) and error > 0.0 and 0.0 < value < 1.0):
        return float(known)
    return min(float(known), value * (1.0 - value) / error**2)


def _of_context(sums: BinnedSums, number: int, confidence: float) -> Estimate:
    count, weight = int(sums.decisions[number]), float(sums.weight[number])
    mean = float(np.clip(sums.mean[number], -1.0, 1.0))
    if count < 2 or weight <= 0.0:  # noqa: PLR2004 (one has no variance)
        return Estimate(value=mean)
    variance = max(0.0, (sums.squares[number] - sums.loss[number] ** 2 / count) / (count - 1))
    radius = NormalDist().inv_cdf(0.5 + confidence / 2.0) * math.sqrt(variance * count) / weight
    return Estimate(value=mean, low=max(-1.0, mean - radius), high=min(1.0, mean + radius), interval="normal")
