"""One evaluation, from a log and candidates to what is said about them."""

import math
from collections.abc import Iterable, Sequence

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.candidate_sums import sum_stationary
from clipper_stream.evaluation.candidates.candidate import Candidate, LearningPolicy, StationaryCandidate
from clipper_stream.evaluation.estimators.intervals import draws, joint_confidence
from clipper_stream.evaluation.estimators.support import MOST_UNSUPPORTED
from clipper_stream.evaluation.log_summary import LogSummary, summarize_log
from clipper_stream.evaluation.question import Log, Question
from clipper_stream.evaluation.replicates import run_replicates
from clipper_stream.evaluation.results import Evaluation
from clipper_stream.evaluation.summarize import Summarizer, headline_of
from clipper_stream.feedback.update import scale_of
from clipper_stream.sequential_testing.score_sums import MOST_AT_BOUND


def evaluate(application: str, log: Log, candidates: Sequence[Candidate], question: Question) -> Evaluation:
    """Estimate what each candidate would have lost on a log, which is read several times.

    Raises:
        InvalidSetting: there is no candidate, or nothing that could be estimated from.
    """
    if not candidates:
        raise InvalidSetting("no candidate: name a policy, a model or an ensemble")
    found, drawn = summarize_log(log, question), draws(question.seed)
    settled = [each for each in candidates if isinstance(each, StationaryCandidate)]
    logged, sums = sum_stationary(log, settled, question, found)
    tallies = dict(zip(map(id, settled), sums, strict=True))
    walked = {
        id(one): run_replicates(log, one, question, found) for one in candidates if isinstance(one, LearningPolicy)
    }
    tallies |= {key: courses[0].tally for key, courses in walked.items()}
    compared = {key: (tally.estimates[headline_of(tally)], tally.reference) for key, tally in tallies.items()}
    confidence = joint_confidence(list(compared.values()), drawn, question.confidence)
    summarizer = Summarizer(question=question, found=found, logged=logged, drawn=drawn, confidence=confidence)
    outline = found.outline
    return Evaluation(
        application=application,
        since_ms=outline.timeline.since_ms,
        until_ms=outline.timeline.until_ms,
        decisions=outline.decisions,
        with_feedback=found.used,
        confidence=question.confidence,
        loss=question.loss,
        logged=summarizer.of_logged(),
        candidates=tuple(
            summarizer.of_learning(each.name, walked[id(each)])
            if isinstance(each, LearningPolicy)
            else summarizer.of_stationary(each, tallies[id(each)])
            for each in candidates
        ),
        notes=tuple(_notes(found, question, [(each.name, compared[id(each)][1].decisions) for each in candidates])),
    )


def _notes(found: LogSummary, question: Question, counted: Sequence[tuple[str, int]]) -> Iterable[str]:
    """What was left out or assumed; of each candidate, how many decisions count for it."""
    yield found.censored.sentence + "."
    if warning := found.censored.warning(found.outline.models):
        yield warning + "."
    if len(found.outline.policies) > 1:
        yield f"Several policies decided: {', '.join(found.outline.policies)}; the logged loss is of all of them."
    yield (
        f"Feedback came within {found.maturity_ms / 1_000:,.1f} s for 99 % of the decisions; younger ones are left out."
    )
    scale = scale_of(question.loss)
    if math.isfinite(scale):
        yield f"Losses are in the unit of the labels; a difference of {scale:g} or more counts as {scale:g}."
        if found.at_bound > MOST_AT_BOUND * found.used:
            yield f"That is so of {found.at_bound / found.used:.1%} of the answers: set a larger loss_scale."
    for name, decisions in counted:
        if 0 < decisions < (1.0 - MOST_UNSUPPORTED) * found.used:
            yield (
                f"{name} is judged by {decisions:,} of {found.used:,} decisions, those made while all that it would "
                "ask could be asked; its difference is to what these lost."
            )
    if len(counted) > 1:
        yield f"Intervals and verdicts hold for all {len(counted)} candidates together with {question.confidence:.0%}."
