"""Errors by policy, by model and by phase, from the answers to the applications."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipper_agents.demo.answers import UNANSWERED, AnswerLog
from clipper_agents.demo.data import FloatArray
from clipper_agents.demo.plan import FAILED, POLICIES, DemoPlan
from clipper_stream.intervals import Ends, mean_difference

ENSEMBLE = "exp4"
"""Asks all models for every query: its log is what each of them alone would have answered."""


@dataclass(frozen=True, slots=True)
class DemoScores:
    """The errors of a run: by query 1 for a wrong answer, 0 for a right one, NaN where the query does not count.

    Attributes:
        plan: The run.
        broken: Reference of the model that failed.
        policies: By policy, over the queries to its application; one without an answer is wrong, as a default is.
        models: By model, over the queries to the ensemble's application that the model answered in time.
    """

    plan: DemoPlan
    broken: str
    policies: dict[str, FloatArray]
    models: dict[str, FloatArray]

    def within(self, phase: str, wrong: FloatArray) -> FloatArray:
        """The queries of a phase that count."""
        return counted(wrong[slice(*self.plan.bounds_of(phase))])

    def best_model(self, phase: str) -> str:
        """The model with the least error in a phase, known only afterwards."""
        return min(self.models, key=lambda ref: error_of(self.within(phase, self.models[ref])))

    def versus_best(self, policy: str, phase: str) -> tuple[str, float, Ends]:
        """The best model of a phase, the policy's error less the model's over the same queries, and the interval."""
        ref = self.best_model(phase)
        return ref, *mean_difference(self.within(phase, self.policies[policy] - self.models[ref]))

    def way_to_broken(self, policy: str) -> float:
        """Where a policy's error in the failure lies between the best working model's (0) and the broken one's (1)."""
        best = error_of(self.within(FAILED, self.models[self.best_model(FAILED)]))
        worst = error_of(self.within(FAILED, self.models[self.broken]))
        ours = error_of(self.within(FAILED, self.policies[policy]))
        return (ours - best) / (worst - best) if worst > best else 0.0


def score(log: AnswerLog, labels: Sequence[int], plan: DemoPlan, broken: str) -> DemoScores:
    """The errors of a run.

    Args:
        log: The answers.
        labels: The true digit of each query.
        plan: The run.
        broken: Reference of the model that failed.
    """
    truth = np.asarray(labels, np.int8)
    application = np.arange(len(truth)) % len(POLICIES)
    asked = {policy: application == number for number, policy in enumerate(POLICIES)}
    policies = {policy: np.where(mine, log.digits != truth, np.nan) for policy, mine in asked.items()}
    models = {
        ref: np.where(asked[ENSEMBLE] & (digits != UNANSWERED), digits != truth, np.nan)
        for ref, digits in zip(log.models, log.model_digits, strict=True)
    }
    return DemoScores(plan, broken, policies, models)


def counted(wrong: FloatArray) -> FloatArray:
    """The queries that count."""
    return wrong[~np.isnan(wrong)]


def error_of(wrong: FloatArray) -> float:
    """Share of wrong answers, in [0, 1]; 0 of none."""
    return float(wrong.mean()) if len(wrong) else 0.0
