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

With a plan, all scores since the trial began are looked at ten times only (`planned_test`). It is stepped up where the
difference is below the margin, and else aborted where it is above 0, or when the plan is over. So a trial is wrongly
stepped up if it is worse by the margin, wrongly found worse if it is not worse, and in between nothing is wrong.

Rules of this file:
- To step up, all scores since the trial began count. Those of each step alone would make each step take as long as the
  first.
- To abort, the scores of the step alone are looked at as well: a version that was fine as a shadow and fails under a
  canary's load must not be saved by its past. For the same reason a step waits while its own mean is above the margin
  by more than its standard error: to wait is no decision that may be wrong, so an estimate for one look will do.
- Where a trial is not asked as often as the log says, no score means what it says, and nothing is decided.
- A version that is tried again has no new budget of errors: each attempt has 19 of 20 parts of what those before left.
- Trials that are on at once share alpha, so that the best of several is no lucky one.
- A loss at its bound may be any larger one: no promotion by such losses of the trial, no abort by such of the answers.
- That feedback is about a random sample is not believed while the difference may be that of who is heard.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from clipper_stream.errors import InvalidSetting
from clipper_stream.sequential_testing.planned_test import DAY_S, LOOKS, Look, TrialPlan, interval, is_above, is_below
from clipper_stream.sequential_testing.score_sums import MOST_AT_BOUND, WAITING_COSTS, Capital
from clipper_stream.sequential_testing.trial_evidence import Side, TrialEvidence

SAME_SHARE = 1e-9
ALPHA_OF_SHARE = 0.001
"""Probability that a trial that is drawn as the log says is refused ever."""
ONE_IN_TWENTY = 1.645
"""Standard errors that a mean is off on one side by chance at one look in twenty; to wait is no wrong decision."""
LEFT_BY_AN_ATTEMPT = 0.05
"""Of alpha: the first attempt is then decided nearly as soon as if there were no other."""
ANSWERS_WITHIN_S = 600
"""A host is asked once it is ready: one that has given no answer for so long will give none."""
READY_WITHIN_S = 3_600
"""A version may be on trial before its host is started; nobody remembers one that has none for longer."""

Action = Literal["wait", "step", "promote", "abort"]
Finding = Literal["undecided", "better", "not worse", "no difference that matters", "worse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRule:
    """The rule's parameters.

    Attributes:
        confidence: Of an interval of the difference, at all times at once, in (0, 1).
        margin: How much more loss is taken as no loss, in [0, 1].
        steps: Shares of a canary, rising, each in (0, 1].
        least: Feedbacks about the trial at each step before the next.
        attempt: Number of times that the version was put to the test, this one included, at least 1.
        at_once: Number of trials that were on at once, this one included, at least 1.
        relative: How much more loss is taken as no loss, as a multiple of the answers' loss; 0: `margin` counts.
        plan: When a trial ends at the latest; None: when something is known for sure.
        least_days: Whole days before a promotion, for losses that follow the time of day.

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
    at_once: int = 1
    relative: float = 0.0
    plan: TrialPlan | None = None
    least_days: int = 0

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
        return (1.0 - self.confidence) / 2 * spent / self.at_once

    @property
    def limit(self) -> float:
        """What the mean of the scores is held against: the margin, or 0 of scores that are relative to the answers."""
        return 0.0 if self.relative else self.margin

    @property
    def answers(self) -> str:
        """What the trial's loss is compared with, as a sentence has it."""
        return f"{1.0 + self.relative:g} times the answers" if self.relative else "the answers"

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
        numbers: What it was made of: the finding, which the scores say for sure, whatever is done; the scores and how
            many of them are waited for, from which second to which their queries were asked, the mean losses that
            feedback told, the estimate of their difference with its interval, and the rule's confidence and margin.

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
    found = numbers_of(rule, evidence, evidence.looks[-1].scores if rule.plan and evidence.looks else whole)
    why = _not_as_logged(evidence, before)
    if why is not None:
        return TrialVerdict(action="wait", why=why, numbers=found)
    finding = found["finding"] = _finding(rule, whole, evidence.looks)
    why = _not_believed(rule, whole, evidence, found)
    if why is not None:
        return TrialVerdict(action="wait", why=why, numbers=found | {"finding": "undecided"})
    abort = _abort(rule, step, evidence, before, found)
    if abort is not None:
        return TrialVerdict(action="abort", why=abort, numbers=found)
    why = _waits_for(rule, whole, step, evidence, finding)
    why = _at_bound(evidence, "trial") or (why and (_at_bound(evidence, "answer") or why))
    following = rule.steps[0] if stage == "shadow" else rule.next_share(share)
    if why is None and following is None and (days := (whole.upto - (evidence.began or 0)) / DAY_S) < rule.least_days:
        why = f"it has been on trial for {days:.1f} days of at least {rule.least_days}"
    if why is not None:
        return TrialVerdict(action="wait", why=why, numbers=found)
    bound, side = ("at most", "more") if found["upper"] >= 0.0 else ("at least", "less")
    lost = f"{bound} {abs(found['upper']):.4f} {side} than {rule.answers}"
    return TrialVerdict(
        action="promote" if following is None else "step",
        share=following,
        why=f"{finding}: it loses {lost}; {rule.limit:g} more was allowed",
        numbers=found,
    )


def _finding(rule: TrialRule, whole: Capital, looks: Sequence[Look]) -> Finding:
    alpha, is_equal = rule.alpha, False
    if rule.plan is None:
        is_fine, is_worse = whole.below >= -math.log(alpha), whole.above >= -math.log(alpha / 2)
        is_better = whole.upper(alpha) < 0.0
    else:
        is_fine, is_worse = is_below(looks, alpha, rule.limit), is_above(looks, alpha / 2, 0.0)
        is_better, is_equal = is_below(looks, alpha, 0.0), is_above(looks, alpha, -rule.margin)
    if not is_fine:
        return "worse" if is_worse else "undecided"
    if rule.relative or not (is_better or is_equal):
        return "not worse"
    return "better" if is_better else "no difference that matters"


def _not_as_logged(evidence: TrialEvidence, before: int | None) -> str | None:
    drawn = evidence.share.capital(before)
    if drawn.mean is None or max(drawn.below, drawn.above) < -math.log(ALPHA_OF_SHARE / 2):
        return None
    more = f"it was asked {drawn.mean:+.4f} of the queries more often than its share says"
    return f"{more}: the log does not hold the shares that were in force, so nothing is decided by it"


def _not_believed(rule: TrialRule, whole: Capital, evidence: TrialEvidence, found: Mapping[str, Any]) -> str | None:
    """Why a declared sample decides nothing: what was not heard of either side could be all of the difference."""
    heard, of = evidence.heard_so_far, found["difference"]
    if heard is None or found["paired"] or found["finding"] == "undecided" or of is None:
        return None
    trial, answer = found["trial_loss"], found["answer_loss"]
    mean, error = heard.mean or 0.0, ONE_IN_TWENTY * heard.standard_error
    less, more = mean - error, mean + error
    unheard = (
        max(-less * (1.0 - trial), more * answer) if of < rule.limit else max(-less * trial, more * (1.0 - answer))
    )
    if unheard * whole.scores < abs(of - rule.limit) * whole.totals[0]:
        return None
    share = f"it has {mean:+.4f} more of the feedback than of the queries, or from {less:+.4f} to {more:+.4f}"
    return f"{share}: what was not heard could be the difference, so sampled_feedback is not believed yet"


def _abort(
    rule: TrialRule, step: Capital, evidence: TrialEvidence, before: int | None, found: Mapping[str, Any]
) -> str | None:
    silence = evidence.silence.capital(before)
    if silence.above >= -math.log(rule.alpha / 4):
        left = (
            f"over {silence.scores} seconds it left {silence.mean:.4f} more of its queries unanswered than the models"
        )
        return f"{left}, above the margin {rule.margin:g}"
    absent = _absent(evidence)
    if absent is not None or _at_bound(evidence, "answer"):
        return absent
    least, more = found["lower"], f"more than {rule.answers}"
    if found["finding"] == "worse":
        lost = f"since the trial began it lost at least {least:.4f} {more}"
        return f"{lost}, above the margin {rule.limit:g}" if rule.plan is None else f"{lost}, by its plan"
    if step.above >= -math.log(rule.alpha_of_step):
        lost = f"at this step it lost at least {step.lower(rule.alpha_of_step):.4f} {more}"
        return f"{lost}, above the margin {rule.limit:g}"
    if found["finding"] == "undecided" and evidence.looks and evidence.looks[-1].fraction >= 1.0:
        return f"its plan is over and leaves it undecided: it loses from {least:+.4f} to {found['upper']:+.4f} {more}"
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


def _waits_for(rule: TrialRule, whole: Capital, step: Capital, evidence: TrialEvidence, finding: Finding) -> str | None:
    if evidence.began is None:
        return f"it has not answered yet, of {evidence.asked} queries that asked it"
    if evidence.kind is None:
        return "no feedback has come yet about a query since its first answer"
    if finding in ("undecided", "worse"):
        return _undecided(rule, whole, evidence)
    if evidence.step_losses < rule.least:
        return f"{evidence.step_losses} feedbacks about it at this step of at least {rule.least}"
    if step.mean is not None and step.mean - step.standard_error > rule.limit:
        return f"at this step it lost {step.mean:.4f} more than {rule.answers}, above the margin {rule.limit:g}"
    return None


def _undecided(rule: TrialRule, whole: Capital, evidence: TrialEvidence) -> str:
    if rule.plan is not None:
        parts = round(LOOKS * evidence.looks[-1].fraction) if evidence.looks else 0
        return f"{evidence.feedbacks} feedbacks, and {parts} of {LOOKS} parts of its plan are over"
    unknown = f", {whole.unknown:.4f} of it by losses that are not known" if whole.unknown > rule.margin else ""
    worst = f"it may lose {whole.upper(rule.alpha):.4f} more than {rule.answers}{unknown}"
    return f"{worst}, not below the margin {rule.limit:g}{_left_out(whole, evidence.window_s)}"


def _left_out(whole: Capital, window_s: float) -> str:
    """What to know where feedback is so late, or so seldom, that fewer queries count than do not."""
    if whole.left_out <= whole.scores:
        return ""
    waiting = f"more than one in {WAITING_COSTS} of them waits for feedback"
    window = f", or for the end of its {window_s:g} s" if window_s else ""
    return f"; {whole.left_out} {'contexts' if window_s else 'queries'} do not count yet: {waiting}{window}"


def numbers_of(rule: TrialRule, evidence: TrialEvidence, found: Capital) -> dict[str, Any]:
    """What scores say; the estimate is of the same queries and weights as the interval, and lies in it."""
    (trial_feedbacks, trial_loss), (answer_feedbacks, answer_loss) = found.trial, found.answer
    lower, upper = found.lower(rule.alpha), found.upper(rule.alpha)
    if rule.plan is not None:
        lower, upper = interval(evidence.looks, rule.alpha)
    return {
        "finding": "undecided",
        "scores": found.scores,
        "waiting": found.waiting,
        "since_s": evidence.began,
        "upto_s": found.upto,
        "trial_feedbacks": trial_feedbacks,
        "trial_loss": trial_loss,
        "answer_feedbacks": answer_feedbacks,
        "answer_loss": answer_loss,
        "difference": found.estimate(rule.relative),
        "standard_error": found.standard_error if found.scores else None,
        "paired": 2 * (1.0 + rule.relative) * found.totals[0] > found.scores,
        "lower": -1.0 if _at_bound(evidence, "answer") else lower,
        "upper": 1.0 if _at_bound(evidence, "trial") else upper,
        "confidence": rule.confidence,
        "margin": rule.margin,
    }
