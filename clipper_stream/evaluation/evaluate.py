"""One evaluation, from a log and candidates to what is said about them."""

from collections.abc import Iterable, Sequence

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.candidate_sums import ON_POLICY, sum_stationary
from clipper_stream.evaluation.candidates.candidate import Candidate, LearningPolicy, StationaryCandidate
from clipper_stream.evaluation.estimators.intervals import draws, joint_confidence
from clipper_stream.evaluation.log_summary import LogSummary, summarize_log
from clipper_stream.evaluation.question import Log, Question
from clipper_stream.evaluation.replicates import run_replicates
from clipper_stream.evaluation.results import CandidateResult, Evaluation
from clipper_stream.evaluation.summarize import Summarizer, headline_of


def evaluate(application: str, log: Log, candidates: Sequence[Candidate], question: Question) -> Evaluation:
    """Estimate what each candidate would have lost on a log.

    Args:
        application: Its name, for the report.
        log: Begins to read it anew, each time the same decisions.
        candidates: At least one.
        question: How they are looked at.

    Raises:
        InvalidSetting: there is no candidate, or nothing that could be estimated from.
    """
    if not candidates:
        raise InvalidSetting("no candidate: name a policy, a model or an ensemble")
    found = summarize_log(log, question)
    settled = [each for each in candidates if isinstance(each, StationaryCandidate)]
    logged, tallies = sum_stationary(log, settled, question, found)
    learning = [each for each in candidates if isinstance(each, LearningPolicy)]
    walked = [run_replicates(log, each, question, found) for each in learning]
    compared = [tally.estimates[headline_of(tally)] for tally in tallies]
    compared += [next(iter(ways.values()))[0].estimate for ways in walked]
    drawn = draws(question.seed)
    each_confidence = joint_confidence(compared, logged.estimates[ON_POLICY], drawn, question.confidence)
    summarizer = Summarizer(question=question, found=found, logged=logged, drawn=drawn, confidence=each_confidence)
    results: dict[int, CandidateResult] = {
        id(each): summarizer.of_stationary(each, tally) for each, tally in zip(settled, tallies, strict=True)
    }
    results |= {id(each): summarizer.of_learning(each.name, ways) for each, ways in zip(learning, walked, strict=True)}
    outline = found.outline
    return Evaluation(
        application=application,
        since_ms=outline.timeline.since_ms,
        until_ms=outline.timeline.until_ms,
        decisions=outline.decisions,
        with_feedback=found.used,
        confidence=question.confidence,
        logged=summarizer.of_logged(),
        candidates=tuple(results[id(each)] for each in candidates),
        notes=(*_notes(found), *_joint_note(len(candidates), question.confidence)),
    )


def _joint_note(candidates: int, confidence: float) -> Iterable[str]:
    if candidates > 1:
        yield f"Intervals and verdicts hold for all {candidates} candidates together with {confidence:.0%}."


def _notes(found: LogSummary) -> Iterable[str]:
    yield found.censored.sentence + "."
    if warning := found.censored.warning(found.outline.models):
        yield warning + "."
    if len(found.outline.policies) > 1:
        yield f"Several policies decided: {', '.join(found.outline.policies)}; the logged loss is of all of them."
    yield (
        f"Feedback came within {_span(found.maturity_ms)} for 99 % of the decisions; younger ones are left out. "
        f"The least probability with which a model was scored is {found.least_propensity:.3g}."
    )


def _span(ms: float) -> str:
    text = f"{ms:.0f} ms"
    for unit, length, least in (("s", 1_000, 1_000), ("min", 60_000, 600_000), ("h", 3_600_000, 7_200_000)):
        if ms >= least:
            text = f"{ms / length:.1f} {unit}"
    return text
