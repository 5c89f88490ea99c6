"""Whether a trial is stepped up, promoted or aborted: a rule that may be asked after every feedback.

    stage              interval below margin,              interval above margin,      else
                       and `least` feedbacks at this step  over the trial or the step
    shadow             canary at the first share           abort                       wait
    canary, a share    canary at the next share            abort                       wait
    canary, the last   promote                             abort                       wait

Why it may look at any time: the intervals are confidence sequences, so the probability that one of them is *ever* wrong
is at most 1 - confidence, however often it is asked and whatever makes it stop. A trial that is worse by more than the
margin is thus ever stepped up, and one that is not is ever aborted, with that probability at most.

How alpha = 1 - confidence is divided (union bound): half is the interval since the trial began, the other half is
shared by the intervals of the steps; within each, half is that of pairs and half that of samples (`evidence`).

Rules of this file:
- To step up, all feedback since the trial began counts: a query drawn for a shadow and one drawn for a canary are
  drawn from the same queries, and the difference is the same. Feedback of each step alone would make each step take as
  long as the first.
- To abort, the feedback of the step alone is looked at as well: a version that was fine as a shadow and fails under a
  canary's load must not be saved by its past. For the same reason a step waits while its own mean is above the margin
  by more than its standard error: to wait is no decision that may be wrong, so an estimate for one look will do.
- A version that does not answer has a loss of 1 in each of these intervals.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from clipper_stream.errors import InvalidSetting
from clipper_stream.sequential_testing.empirical_bernstein import EmpiricalBernstein
from clipper_stream.sequential_testing.evidence import DifferenceEvidence

SAME_SHARE = 1e-9

Action = Literal["wait", "step", "promote", "abort"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRule:
    """The rule's parameters.

    Attributes:
        confidence: Of all intervals about one trial together, at all times at once, in (0, 1).
        margin: How much more loss is taken as no loss, in [0, 1].
        steps: Shares of a canary, rising, each in (0, 1].
        least: Feedbacks about the trial at each step before the next.

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

    def __post_init__(self) -> None:
        if not 0.0 < self.confidence < 1.0:
            raise InvalidSetting(f"confidence is {self.confidence!r}: give a number in (0, 1), such as 0.95")
        if not 0.0 <= self.margin <= 1.0:
            raise InvalidSetting(f"margin is {self.margin!r}: give a loss in [0, 1], such as 0.02")
        rising = all(low < high for low, high in zip((0.0, *self.steps), self.steps, strict=False))
        if not self.steps or not rising or self.steps[-1] > 1.0:
            raise InvalidSetting(f"steps are {self.steps!r}: give rising shares in (0, 1], such as 0.05, 0.25, 0.5")

    @property
    def alpha_of_trial(self) -> float:
        """Of the interval since the trial began."""
        return (1.0 - self.confidence) / 2

    @property
    def alpha_of_step(self) -> float:
        """Of the interval of each step: the shadow's, and one a share."""
        return (1.0 - self.confidence) / 2 / (1 + len(self.steps))

    def next_share(self, share: float) -> float | None:
        """The share after this one; None after the last."""
        return next((step for step in self.steps if step > share + SAME_SHARE), None)


@dataclass(frozen=True, slots=True)
class TrialEvidence:
    """All that is known of one trial.

    Attributes:
        whole: Since the trial began.
        step: Since its present stage and share began.
        losses: The trial's own, since it began.

    >>> TrialEvidence.of(TrialRule()).observe(1.0, 0.0).whole.feedbacks
    1

    Source: as `TrialRule`.
    """

    whole: DifferenceEvidence
    step: DifferenceEvidence
    losses: EmpiricalBernstein

    @classmethod
    def of(cls, rule: TrialRule) -> "TrialEvidence":
        """No feedback yet."""
        own = EmpiricalBernstein(alpha=1.0 - rule.confidence)
        return cls(DifferenceEvidence.of(rule.alpha_of_trial), DifferenceEvidence.of(rule.alpha_of_step), own)

    def observe(self, trial: float | None, answer: float | None, *, of_step: bool = True) -> "TrialEvidence":
        """After one feedback; the arguments are those of `DifferenceEvidence.observe`.

        Args:
            trial: Loss of the trial; None: not known.
            answer: Loss of what the application's models answered; None: not known.
            of_step: Whether the query was decided at the present stage and share.
        """
        return TrialEvidence(
            self.whole.observe(trial, answer),
            self.step.observe(trial, answer) if of_step else self.step,
            self.losses if trial is None else self.losses.observe(trial),
        )

    def at_next_step(self, rule: TrialRule) -> "TrialEvidence":
        """With another stage or share, of which nothing is known yet."""
        return replace(self, step=DifferenceEvidence.of(rule.alpha_of_step))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialVerdict:
    """What the rule says.

    Attributes:
        action: `wait`, `step`, `promote` or `abort`.
        share: Of the canary, for `step`.
        why: The rule that fired, with value and bound.
        numbers: What it was made of: feedbacks, difference, lower, upper, confidence, margin.

    >>> judge(TrialRule(), "shadow", 1.0, TrialEvidence.of(TrialRule())).action
    'wait'

    Source: as `TrialRule`.
    """

    action: Action
    share: float | None = None
    why: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


def judge(rule: TrialRule, stage: Literal["shadow", "canary"], share: float, evidence: TrialEvidence) -> TrialVerdict:
    """What to do with a trial.

    Args:
        rule: The rule.
        stage: The trial's.
        share: The trial's, of a canary.
        evidence: What is known of it.
    """
    whole, step = evidence.whole, evidence.step
    for found, span in ((whole, "since the trial began"), (step, "at this step")):
        if found.lower > rule.margin:
            why = f"{span} it lost at least {found.lower:.4f} more than the answers, above the margin {rule.margin:g}"
            return TrialVerdict(action="abort", why=why, numbers=_numbers(rule, found))
    numbers = _numbers(rule, whole)
    if whole.upper >= rule.margin:
        why = f"it may lose {whole.upper:.4f} more than the answers, not below the margin {rule.margin:g}"
        return TrialVerdict(action="wait", why=why, numbers=numbers)
    if step.feedbacks < rule.least:
        why = f"{step.feedbacks} feedbacks about it at this step of at least {rule.least}"
        return TrialVerdict(action="wait", why=why, numbers=numbers)
    if step.difference is not None and step.difference - step.standard_error > rule.margin:
        why = f"at this step it lost {step.difference:.4f} more than the answers, above the margin {rule.margin:g}"
        return TrialVerdict(action="wait", why=why, numbers=numbers)
    why = f"it loses at most {whole.upper:.4f} more than the answers, below the margin {rule.margin:g}"
    following = rule.steps[0] if stage == "shadow" else rule.next_share(share)
    if following is None:
        return TrialVerdict(action="promote", why=why, numbers=numbers)
    return TrialVerdict(action="step", share=following, why=why, numbers=numbers)


def _numbers(rule: TrialRule, found: DifferenceEvidence) -> dict[str, Any]:
    return {
        "feedbacks": found.feedbacks,
        "difference": found.difference,
        "lower": found.lower,
        "upper": found.upper,
        "confidence": rule.confidence,
        "margin": rule.margin,
    }
