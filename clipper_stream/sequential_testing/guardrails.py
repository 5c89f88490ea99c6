"""Guardrails of a trial: measures beside its loss that must not become worse, each with a sequence of its own.

Rules of this file:
- A wrong abort is as rare with guardrails as without: the loss and each of n guardrails have alpha / (1 + n) (union
  bound), of which a guardrail has half for all its scores, and half for those of the steps, as the loss has.
- A promotion waits for all, and is wrong only if the one that is outside passes: so each has all of alpha.
- A step waits only while the step's mean is outside by more than its standard error: its next share proves the rest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from clipper_stream.sequential_testing.rollout_rule import Action, TrialRule, TrialVerdict
from clipper_stream.sequential_testing.score_sums import Capital

KNOWN = "{estimate:.4g} in [{lower:.4g}, {upper:.4g}], bound {bound:.4g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailEvidence:
    """What is known of a guardrail.

    Attributes:
        name: Its name.
        whole: Of its scores since the trial began, against its bound or margin: greater means are worse.
        step: The same of those of the present step.
        unit: A score of 1 in the unit of the metric; negative where its higher values are good.
        waits_for: Why nothing may be decided by it; empty: something may.

    >>> from clipper_stream.sequential_testing.score_sums import ScoreSums
    >>> none = ScoreSums(margin=0.01).capital()
    >>> GuardrailEvidence(name="p99", whole=none, step=none).figures(TrialRule())["state"]
    'undecided'

    Source: Schultzberg, Ankargren and Franberg, "Risk-aware product decisions in A/B tests with multiple metrics",
    2024, arXiv:2402.11609 (which tests share an alpha).
    """

    name: str
    whole: Capital
    step: Capital
    unit: float = 1.0
    waits_for: str = ""

    def figures(self, rule: TrialRule) -> dict[str, Any]:
        """Name, state, and in the metric's unit mean so far, ends of its interval, and bound.

        It is `within`, `outside` or `undecided`; the mean is that of the step if that is outside.
        """
        tests = ((self.whole, rule.alpha_of_abort / 2), (self.step, 2 * rule.alpha_of_step))
        outside = [(found, alpha) for found, alpha in tests if found.above >= -math.log(alpha)]
        capital, alpha = (outside or tests)[0]
        within = self.whole.below >= -math.log(rule.alpha)
        state = "undecided" if self.waits_for else "outside" if outside else "within" if within else "undecided"
        lower, upper = sorted((self.unit * capital.lower(alpha), self.unit * capital.upper(rule.alpha)))
        estimate = None if capital.mean is None else self.unit * capital.mean
        bound = self.unit * capital.margin
        known = {"estimate": estimate, "lower": lower, "upper": upper, "bound": bound}
        return {"name": self.name, "state": state, **known}

    def holds_up(self, rule: TrialRule, action: Action) -> bool:
        """Return whether a step or a promotion has to wait for it."""
        if action == "promote" and self.figures(rule)["state"] != "within":
            return True
        mean, error = self.step.mean, self.step.standard_error
        return action in ("step", "promote") and mean is not None and mean - error > self.step.margin


def within_guardrails(rule: TrialRule, verdict: TrialVerdict, guardrails: Sequence[GuardrailEvidence]) -> TrialVerdict:
    """The verdict about the losses of a trial, by a rule with so many guardrails, held against these."""
    found = {one.name: one.figures(rule) for one in guardrails}
    if found:
        states, finding = {one["state"] for one in found.values()}, verdict.numbers["finding"]
        if finding != "worse" and states != {"within"}:
            finding = "worse" if "outside" in states else "undecided"
        verdict = replace(verdict, numbers={**verdict.numbers, "finding": finding, "guardrails": [*found.values()]})
    outside = [one for one in guardrails if verdict.action != "abort" and found[one.name]["state"] == "outside"]
    for one in outside or [one for one in guardrails if one.holds_up(rule, verdict.action)]:
        known = KNOWN if one.whole.scores else "no score yet"
        why = f"{'outside' if outside else 'not within'} for sure: {one.waits_for or known.format(**found[one.name])}"
        why = f"guardrail {one.name} is {why}"
        return replace(verdict, action="abort" if outside else "wait", share=None, why=why)
    return verdict
