"""What a trial waits for, by the application's rule."""

from clipper_topics.manifests import RolloutRule, Trial


def waits_for(trial: Trial, rule: RolloutRule, feedbacks: int, lower: float, upper: float) -> str:
    """What has to come before a trial makes its next step.

    Args:
        trial: The trial.
        rule: The application's.
        feedbacks: About it.
        lower: Lower end of the interval of the difference of losses, the trial's less the others'.
        upper: Upper end of it.

    >>> waits_for(Trial(model="svm:2", automatic=True), RolloutRule(least=50), 12, -0.1, 0.1)
    '38 more feedbacks (12 of 50)'
    """
    if not trial.automatic:
        return "somebody to decide: it is not automatic"
    if lower > rule.margin:
        return f"nothing: it is to be aborted, its loss is higher by more than {rule.margin:g}"
    if feedbacks < rule.least:
        return f"{rule.least - feedbacks} more feedbacks ({feedbacks} of {rule.least})"
    if upper < rule.margin:
        return f"nothing: it is to be {_next_step(trial, rule)}"
    return f"the upper end {upper:+.3f} to fall below {rule.margin:g}, or the lower {lower:+.3f} to rise above it"


def _next_step(trial: Trial, rule: RolloutRule) -> str:
    higher = [step for step in rule.steps if trial.stage == "shadow" or step > trial.share]
    return f"a canary of {100 * higher[0]:g} %" if higher else "promoted"
