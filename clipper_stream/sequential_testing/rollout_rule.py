"""Whether a trial is stepped up, promoted or aborted: a rule that may be asked after every feedback.

    stage              difference below the margin,        difference above it,        else
                       and `least` feedbacks at this step  over the trial or the step
    shadow             canary at the first share           abort                       wait
    canary, a share    canary at the next share            abort                       wait
    canary, the last   promote                             abort                       wait

Why it may look at any time: the probability that a trial is *ever* stepped up while its mean difference up to then is
not below the margin is at most alpha = (1 - confidence) / 2, and that it is ever aborted while its mean difference is
not above it is at most alpha as well. This holds however often the rule is asked, and whatever changes meanwhile: how
hard queries are, the trial's share, how long feedback takes, which feedback never comes (`score_sums`).

How the alpha of an abort is divided (union bound): half is that of all scores since the trial began, a quarter is
shared by those of each step, a quarter is that of its silence.

Rules of this file:
- To step up, all scores since the trial began count. Those of each step alone would make each step take as long as the
  first.
- To abort, the scores of the step alone are looked at as well: a version that was fine as a shadow and fails under a
  canary's load must not be saved by its past. For the same reason a step waits while its own mean is above the margin
  by more than its standard error: to wait is no decision that may be wrong, so an estimate for one look will do.
- Where a trial is not asked as often as the log says, no score means what it says, and nothing is decided.
- A version that is tried again has no new budget of errors: each attempt has nine tenths of what those before it left.
- A loss at its bound may be any larger one: no promotion by such losses of the trial, no abort by such of the answers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from clipper_stream.errors import InvalidSetting
from clipper_stream.sequential_testing.score_sums import MOST_AT_BOUND, WAITING_COSTS, Capital
from clipper_stream.sequential_testing.trial_evidence import Side, TrialEvidence

SAME_SHARE = 1e-9
ALPHA_OF_SHARE = 0.001
"""Probability that a trial that is drawn as the log says is refused ever."""
LEFT_BY_AN_ATTEMPT = 0.1
"""Of alpha: the first attempt is then decided nearly as soon as if there were no other."""
ANSWERS_WITHIN_S = 600
"""A host is asked once it is ready: one that has given no answer for so long will give none."""
READY_WITHIN_S = 3_600
"""A version may be on trial before its host is started; nobody remembers one that has none for longer."""

Action = Literal["wait", "step", "promote", "abort"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRule:
    """The rule's parameters.

    Attributes:
        confidence: Of an interval of the difference, at all times at once, in (0, 1).
        margin: How much more loss is taken as no loss, in [0, 1].
        steps: Shares of a canary, rising, each in (0, 1].
        least: Feedbacks about the trial at each step before the next.
        attempt: Number of times that the version was put to the test, this one included, at least 1.

    >>> TrialRule(steps=(0.1, 0.5)).next_share(0.1)
    0.5

    Raises:
        InvalidSetting: a value outside of its bounds, or steps that do not rise.

    Source: Crankshaw et al., "Clipper", NSDI 2017, section 5.1 (live comparison of versions); Johari et al., "Always
    valid inference", Operations Research 70, 2022 (why a test that is looked at continuously has to be of this kind).
    """

    confidence: float = 0.95
    margin: float = 0.02
    steps: tuple[float, ...] = (0.05, 0.25, 0.5)
    least: int = 50
    attempt: int = 1

    def __post_init__(self) -> None:
        if not 0.0 < self.confidence < 1.0:
            raise InvalidSetting(f"confidence is {self.confidence!r}: give a number in (0, 1), such as 0.95")
        if not 0.0 <= self.margin <= 1.0:
            raise InvalidSetting(f"margin is {self.margin!r}: give a loss in [0, 1], such as 0.02")
        rising = all(low < high for low, high in zip((0.0, *self.steps), self.steps, strict=False))
        if not self.steps or not rising or self.steps[-1] > 1.0:
            raise InvalidSetting(f"steps are {self.steps!r}: give rising shares in (0, 1], such as 0.05, 0.25, 0.5")

    @property
    def alpha(self) -> float:
        """Of each side of the interval since the trial began, and of stepping up."""
        spent = (1.0 - LEFT_BY_AN_ATTEMPT) * LEFT_BY_AN_ATTEMPT ** (self.attempt - 1)
        return (1.0 - self.confidence) / 2 * spent

    @property
    def alpha_of_step(self) -> float:
        """Of an abort by the scores of one step: the shadow's, and one a share."""
        return self.alpha / 4 / (1 + len(self.steps))

    def next_share(self, share: float) -> float | None:
        """The share after this one; None after the last."""
        return next((step for step in self.steps if step > share + SAME_SHARE), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialVerdict:
    """What the rule says.

    Attributes:
        action: `wait`, `step`, `promote` or `abort`.
        share: Of the canary, for `step`.
        why: The rule that fired, with value and bound, or what is waited for.
        numbers: What it was made of: the scores and how many of them are waited for, from which second to which their
            queries were asked, the mean losses that feedback told, weighted as the scores, and their difference, the
            interval of the difference over all scores, and the rule's confidence and margin.

    >>> judge(TrialRule(), "shadow", 1.0, TrialEvidence(0.02)).action
    'wait'

    Source: as `TrialRule`.
    """

    action: Action
    share: float | None = None
    why: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


def judge(
    rule: TrialRule,
    stage: Literal["shadow", "canary"],
    share: float,
    evidence: TrialEvidence,
    before: int | None = None,
) -> TrialVerdict:
    """What to do with a trial.

    Args:
        rule: The rule.
        stage: The trial's.
        share: The trial's, of a canary.
        evidence: What is known of it.
        before: The first second that is not looked at, as its queries may be unanswered; None: all are.
    """
    whole, step = evidence.whole.capital(before), evidence.step.capital(before)
    why = _not_as_logged(evidence, before)
    if why is not None:
        return TrialVerdict(action="wait", why=why, numbers=numbers_of(rule, evidence, whole))
    abort = _abort(rule, whole, step, evidence, before)
    if abort is not None:
        return abort
    why = _waits_for(rule, whole, step, evidence)
    why = _at_bound(evidence, "trial") or (why and (_at_bound(evidence, "answer") or why))
    if why is not None:
        return TrialVerdict(action="wait", why=why, numbers=numbers_of(rule, evidence, whole))
    following = rule.steps[0] if stage == "shadow" else rule.next_share(share)
    return TrialVerdict(
        action="promote" if following is None else "step",
        share=following,
        why=_why_no_worse(whole.upper(rule.alpha), rule.margin),
        numbers=numbers_of(rule, evidence, whole),
    )


def _why_no_worse(most: float, margin: float) -> str:
    if most < 0.0:
        return f"it loses at least {-most:.4f} less than the answers; {margin:g} more was allowed"
    return f"it loses at most {most:.4f} more than the answers; {margin:g} more was allowed"


def _not_as_logged(evidence: TrialEvidence, before: int | None) -> str | None:
    drawn = evidence.share.capital(before)
    if drawn.mean is None or max(drawn.below, drawn.above) < -math.log(ALPHA_OF_SHARE / 2):
        return None
    more = f"it was asked {drawn.mean:+.4f} of the queries more often than its share says"
    return f"{more}: the log does not hold the shares that were in force, so nothing is decided by it"


def _abort(
    rule: TrialRule, whole: Capital, step: Capital, evidence: TrialEvidence, before: int | None
) -> TrialVerdict | None:
    silence = evidence.silence.capital(before)
    if silence.above >= -math.log(rule.alpha / 4):
        left = (
            f"over {silence.scores} seconds it left {silence.mean:.4f} more of its queries unanswered than the models"
        )
        why = f"{left}, above the margin {rule.margin:g}"
        return TrialVerdict(action="abort", why=why, numbers=numbers_of(rule, evidence, whole))
    absent = _absent(evidence)
    if absent is not None:
        return TrialVerdict(action="abort", why=absent, numbers=numbers_of(rule, evidence, whole))
    if _at_bound(evidence, "answer"):
        return None
    tests = ((whole, rule.alpha / 2, "since the trial began"), (step, rule.alpha_of_step, "at this step"))
    for found, alpha, span in tests:
        if found.above >= -math.log(alpha):
            lost = f"{span} it lost at least {found.lower(alpha):.4f} more than the answers"
            why = f"{lost}, above the margin {rule.margin:g}"
            return TrialVerdict(action="abort", why=why, numbers=numbers_of(rule, evidence, found))
    return None


def _absent(evidence: TrialEvidence) -> str | None:
    if evidence.began is not None:
        return None
    if evidence.asked_s is not None:
        first, last = evidence.asked_s
        found = f"none of {evidence.asked} queries was answered by it, in {ANSWERS_WITHIN_S} seconds"
        return found if last - first >= ANSWERS_WITHIN_S else None
    first, last, expected = evidence.passed or (0, 0, 0.0)
    by_chance = expected < -math.log(ALPHA_OF_SHARE)
    return None if by_chance or last - first < READY_WITHIN_S else f"it had no host to ask, in {READY_WITHIN_S} seconds"


def _at_bound(evidence: TrialEvidence, side: Side) -> str | None:
    known, at_bound = evidence.at_bound[side]
    if at_bound <= MOST_AT_BOUND * known:
        return None
    return (
        f"{at_bound / known:.1%} of the losses of the {side} stand at the bound, where they may be any larger ones: "
        "give the application a larger loss_scale"
    )


def _waits_for(rule: TrialRule, whole: Capital, step: Capital, evidence: TrialEvidence) -> str | None:
    if evidence.began is None:
        return f"it has not answered yet, of {evidence.asked} queries that asked it"
    if evidence.kind is None:
        return "no feedback has come yet about a query since its first answer"
    if whole.below < -math.log(rule.alpha):
        unknown = f", {whole.unknown:.4f} of it by losses that are not known" if whole.unknown > rule.margin else ""
        worst = f"it may lose {whole.upper(rule.alpha):.4f} more than the answers{unknown}"
        return f"{worst}, not below the margin {rule.margin:g}{_left_out(whole, evidence.window_s)}"
    if evidence.step_losses < rule.least:
        return f"{evidence.step_losses} feedbacks about it at this step of at least {rule.least}"
    if step.mean is not None and step.mean - step.standard_error > rule.margin:
        return f"at this step it lost {step.mean:.4f} more than the answers, above the margin {rule.margin:g}"
    return None


def _left_out(whole: Capital, window_s: float) -> str:
    """What to know where feedback is so late, or so seldom, that fewer queries count than do not."""
    if whole.left_out <= whole.scores:
        return ""
    waiting = f"more than one in {WAITING_COSTS} of them waits for feedback"
    window = f", or for the end of its {window_s:g} s" if window_s else ""
    return f"; {whole.left_out} {'contexts' if window_s else 'queries'} do not count yet: {waiting}{window}"


def numbers_of(rule: TrialRule, evidence: TrialEvidence, found: Capital) -> dict[str, Any]:
    """What a verdict was made of."""
    (trial_feedbacks, trial_loss), (answer_feedbacks, answer_loss) = found.trial, found.answer
    return {
        "scores": found.scores,
        "waiting": found.waiting,
        "since_s": evidence.began,
        "upto_s": found.upto,
        "trial_feedbacks": trial_feedbacks,
        "trial_loss": trial_loss,
        "answer_feedbacks": answer_feedbacks,
        "answer_loss": answer_loss,
        "difference": None if trial_loss is None or answer_loss is None else trial_loss - answer_loss,
        "lower": -1.0 if _at_bound(evidence, "answer") else found.lower(rule.alpha),
        "upper": 1.0 if _at_bound(evidence, "trial") else found.upper(rule.alpha),
        "confidence": rule.confidence,
        "margin": rule.margin,
    }
