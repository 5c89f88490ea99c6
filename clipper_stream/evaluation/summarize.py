"""From sums to what is said: intervals, differences, which estimate to read first, and why to be careful.

Rules of this file:
- Of a candidate that stays as it is, DR is read first: it is unbiased as IPS is, and mostly of less variance. Where its
  choices have no support it leans on predictions alone, as any estimate must; the warning says so.
- Of one that learns, the simulation is read first where the losses of all models are known, else sequential DR.
- The interval to be read is that of the bootstrap. Empirical Bernstein holds at any size, and is several times as wide.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np

from clipper_stream.evaluation.accumulators import CandidateSums
from clipper_stream.evaluation.estimators.block_sums import BlockSums
from clipper_stream.evaluation.estimators.bootstrap import bootstrap, bootstrap_difference
from clipper_stream.evaluation.estimators.intervals import Interval, bernstein
from clipper_stream.evaluation.estimators.registry import make_estimators
from clipper_stream.evaluation.log.columns import Floats
from clipper_stream.evaluation.log_summary import LogSummary
from clipper_stream.evaluation.question import Question
from clipper_stream.evaluation.replicates import SIMULATION, Replicate, mean_sums
from clipper_stream.evaluation.results import NOTHING, CandidateResult, ContextResult, Estimate, EvidenceSize, Series
from clipper_stream.evaluation.timeline import BinnedSums

BERNSTEIN = "_bernstein"
WITHOUT_BIAS = "which does not show its bias"
PREFERRED = ("dr", "sndr", "snips", "ips", "switch_dr", "dm", "clipped_ips")
WHY = {
    "dr": "unbiased whatever the predicted losses, with less variance where they are right",
    "simulation": "the losses of all models are known: nothing is estimated",
    "sequential_dr": "it uses every decision with feedback, and lets the candidate learn from those that it would take",
    "on_policy": "the mean loss of the answers that were given",
}
FEW_LEARNED = 0.2
"""Of the decisions with feedback: a candidate that learned from fewer is judged by its first steps."""
MANY_CLIPPED = 0.1


def summarize_logged(
    tally: CandidateSums, question: Question, drawn: Floats, policies: Sequence[str]
) -> CandidateResult:
    """Summarize what was logged."""
    sums = tally.estimates["on_policy"]
    return CandidateResult(
        name=" then ".join(policies) or "nothing",
        kind="logged",
        headline="on_policy",
        why=WHY["on_policy"],
        estimates={"on_policy": _estimate(sums.value, bootstrap(sums, drawn, question.confidence))},
        standing=EvidenceSize(used=sums.decisions),
        series=_series(tally),
    )


def summarize_stationary(
    name: str, kind: str, tally: CandidateSums, logged: CandidateSums, question: Question, drawn: Floats
) -> CandidateResult:
    """Summarize a candidate that does not learn."""
    assert tally.support is not None
    support = tally.support.support(tally.models)
    estimates = dict(_estimates(tally, support.largest_importance, question, drawn))
    headline = next(each for each in (*PREFERRED, *tally.estimates) if each in tally.estimates)
    return CandidateResult(
        name=name,
        kind=kind,
        headline=headline,
        why=WHY.get(headline, "the first of those that were asked for"),
        estimates=estimates,
        difference=_difference(tally.estimates[headline], logged, question, drawn),
        standing=EvidenceSize(
            used=support.decisions,
            effective=support.effective,
            carrying=support.carrying,
            largest_weight=support.largest_weight,
            unsupported_ratio=support.unsupported_ratio,
        ),
        series=_series(tally),
        contexts=_contexts(tally, logged, question),
        warnings=support.warnings,
    )


def _estimates(
    tally: CandidateSums, largest_importance: float, question: Question, drawn: Floats
) -> Iterator[tuple[str, Estimate]]:
    """Each estimator with its interval, and where it has one that holds at any size, with that too."""
    assert tally.support is not None
    for one in make_estimators(list(tally.estimates), decisions=tally.support.decisions):
        sums = tally.estimates[one.name]
        found = _estimate(sums.value, bootstrap(sums, drawn, question.confidence))
        yield one.name, found if one.covers else replace(found, interval=f"{found.interval}, {WITHOUT_BIAS}")
        width = one.width(largest_importance)
        if width is not None and one.covers and not question.reweigh:
            yield one.name + BERNSTEIN, _estimate(sums.value, bernstein(sums, width, question.confidence))


def summarize_learning(
    name: str,
    walked: dict[str, list[Replicate]],
    logged: CandidateSums,
    question: Question,
    found: LogSummary,
    drawn: Floats,
) -> CandidateResult:
    """Summarize a candidate that learns during replay."""
    headline = next(iter(walked))
    estimates = {way: _of_courses(courses, way, question, drawn) for way, courses in walked.items()}
    courses = walked[headline]
    first = courses[0].tally
    return CandidateResult(
        name=name,
        kind="learning policy",
        headline=headline,
        why=WHY[headline],
        estimates=estimates,
        difference=_difference_of_courses(courses, headline, logged, question, drawn),
        standing=EvidenceSize(used=courses[0].known, effective=_effective(mean_sums(courses, headline), courses)),
        series=_mean_series([course.tally for course in courses]),
        contexts=_contexts(first, logged, question),
        warnings=tuple(_learning_warnings(walked, found)),
    )


def _learning_warnings(walked: dict[str, list[Replicate]], found: LogSummary) -> list[str]:
    headline, courses = next(iter(walked.items()))
    if not any(course.known for course in courses):
        return [
            "no decision says anything about it: its models were never asked together. Set audit_ratio, and log again"
        ]
    said = []
    learned = float(np.mean([course.learned for course in courses])) / found.used
    if learned < FEW_LEARNED:
        said.append(
            f"it could learn from {learned:.1%} of the feedback only, so it is judged as if it learned so much more "
            "slowly than it would: switched on it does better, or as well. Set audit_ratio, and log again"
        )
    clipped = float(np.mean([course.clipped for course in courses])) / max(1, courses[0].known)
    if clipped > MANY_CLIPPED:
        said.append(
            f"{clipped:.1%} of the decisions should have counted more than they can: the estimate leans to what was "
            "logged. More exploration in the log makes it right"
        )
    if headline == SIMULATION and courses[0].known < found.used:
        said.append(f"{courses[0].known:,} of {found.used:,} decisions were simulated, those that asked all its models")
    return said


def _of_courses(courses: Sequence[Replicate], way: str, question: Question, drawn: Floats) -> Estimate:
    sums = [course.tally.estimates[way] for course in courses if way in course.tally.estimates]
    known = [each for each in sums if math.isfinite(each.value)]
    if not known:
        return NOTHING
    intervals = [bootstrap(each, drawn, question.confidence) for each in known]
    return Estimate(
        value=float(np.mean([each.value for each in known])),
        low=min(each.lower for each in intervals),
        high=max(each.upper for each in intervals),
        interval=f"bootstrap of {len(known)} courses" if len(known) > 1 else "bootstrap",
    )


def _difference_of_courses(
    courses: Sequence[Replicate], way: str, logged: CandidateSums, question: Question, drawn: Floats
) -> Estimate:
    sums = [course.tally.estimates[way] for course in courses if way in course.tally.estimates]
    each = [_difference(one, logged, question, drawn) for one in sums if math.isfinite(one.value)]
    if not each:
        return NOTHING
    return Estimate(
        value=float(np.mean([one.value for one in each])),
        low=min(one.low for one in each),
        high=max(one.high for one in each),
        interval=each[0].interval,
    )


def _difference(sums: BlockSums, logged: CandidateSums, question: Question, drawn: Floats) -> Estimate:
    baseline = logged.estimates["on_policy"]
    interval = bootstrap_difference(sums, baseline, drawn, question.confidence)
    return _estimate(sums.value - baseline.value, interval)


def _estimate(value: float, interval: Interval) -> Estimate:
    made = {"bca": "bootstrap", "bernstein": "empirical Bernstein"}.get(interval.method, interval.method)
    return Estimate(value=value, low=interval.lower, high=interval.upper, interval=made)


def _effective(sums: BlockSums, courses: Sequence[Replicate]) -> float:
    """Return how many decisions with a loss of the same mean would be known as exactly."""
    error, value = sums.standard_error, sums.value
    if not (math.isfinite(error) and error > 0.0 and 0.0 < value < 1.0):
        return float(courses[0].known)
    return min(float(courses[0].known), value * (1.0 - value) / error**2)


def _series(tally: CandidateSums) -> Series:
    return Series() if tally.spans is None else tally.spans.series(tally.outline.timeline, tally.models)


def _mean_series(tallies: Sequence[CandidateSums]) -> Series:
    known = [tally.spans for tally in tallies if tally.spans is not None]
    if not known:
        return Series()
    whole: BinnedSums = known[0]
    for each in known[1:]:
        whole = whole.merged(each)
    return whole.series(tallies[0].outline.timeline, tallies[0].models)


def _contexts(tally: CandidateSums, logged: CandidateSums, question: Question) -> tuple[ContextResult, ...]:
    """The contexts that are looked at, when there are several; intervals are normal ones."""
    names = tally.outline.contexts
    if len(names) < 2 or tally.contexts is None or logged.contexts is None or tally.differences is None:  # noqa: PLR2004
        return ()
    return tuple(
        ContextResult(
            context=name,
            decisions=int(logged.contexts.decisions[number]),
            logged=float(logged.contexts.mean[number]),
            candidate=float(tally.contexts.mean[number]),
            difference=_of_context(tally.differences, number, question.confidence),
        )
        for number, name in enumerate(names)
    )


def _of_context(sums: BinnedSums, number: int, confidence: float) -> Estimate:
    count, weight = sums.decisions[number], sums.weight[number]
    mean = float(sums.mean[number])
    if count < 2 or weight <= 0.0:  # noqa: PLR2004 (one has no variance)
        return Estimate(value=mean)
    variance = max(0.0, (sums.squares[number] - sums.loss[number] ** 2 / count) / (count - 1))
    radius = NormalDist().inv_cdf(0.5 + confidence / 2.0) * math.sqrt(variance * count) / weight
    return Estimate(value=mean, low=mean - radius, high=mean + radius, interval="normal")
