"""Errors by policy, by model and by phase, from the answers to the applications."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipper_agents.demo.answers import UNANSWERED, AnswerLog
from clipper_agents.demo.data import IntArray
from clipper_agents.demo.plan import FAILED, POLICIES, DemoPlan
from clipper_agents.status.intervals import Interval, Z, wilson

BoolArray = npt.NDArray[np.bool_]
ENSEMBLE = "exp4"
"""Asks all models for every query: its log is what each of them alone would have answered."""


@dataclass(frozen=True, slots=True)
class ScoredQueries:
    """Which answers to the queries of one application were wrong, in the order of the queries.

    Attributes:
        queries: Index of each query.
        wrong: Whether the answer to it was wrong.
    """

    queries: IntArray
    wrong: BoolArray

    def within(self, phase: str, plan: DemoPlan) -> "ScoredQueries":
        """The queries of one phase."""
        start, stop = plan.bounds_of(phase)
        chosen = (self.queries >= start) & (self.queries < stop)
        return ScoredQueries(self.queries[chosen], self.wrong[chosen])

    @property
    def error(self) -> float:
        """Share of wrong answers, in [0, 1]; 0 of none."""
        return float(self.wrong.mean()) if len(self.wrong) else 0.0

    @property
    def interval(self) -> Interval:
        """95 % interval of the error."""
        return wilson(int(self.wrong.sum()), len(self.wrong))


@dataclass(frozen=True, slots=True)
class DemoScores:
    """The errors of a run, by policy and by model.

    Attributes:
        plan: The run.
        broken: Reference of the model that failed.
        policies: By policy, over every query of its application; a query without an answer counts as wrong, as a
            default does.
        models: Each model alone, over the queries of the ensemble that it answered in time.
    """

    plan: DemoPlan
    broken: str
    policies: dict[str, ScoredQueries]
    models: dict[str, ScoredQueries]

    def best_model(self, phase: str) -> str:
        """The model with the least error in a phase, known only afterwards."""
        return min(self.models, key=lambda ref: self.models[ref].within(phase, self.plan).error)

    def versus_best(self, policy: str, phase: str) -> tuple[str, float, Interval]:
        """The best model of a phase, the policy's error less the model's over the same queries, and the interval."""
        ref = self.best_model(phase)
        ours, theirs = self.policies[policy].within(phase, self.plan), self.models[ref].within(phase, self.plan)
        _, first, second = np.intersect1d(ours.queries, theirs.queries, assume_unique=True, return_indices=True)
        return ref, *paired_difference(ours.wrong[first], theirs.wrong[second])

    def way_to_broken(self, policy: str) -> float:
        """Where a policy's error in the failure lies between the best working model's (0) and the broken one's (1)."""
        best = self.models[self.best_model(FAILED)].within(FAILED, self.plan).error
        worst = self.models[self.broken].within(FAILED, self.plan).error
        ours = self.policies[policy].within(FAILED, self.plan).error
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
    queries = {policy: np.arange(turn, len(truth), len(POLICIES)) for turn, policy in enumerate(POLICIES)}
    models = {}
    for ref, digits in zip(log.models, log.model_digits, strict=True):
        known = queries[ENSEMBLE][digits[queries[ENSEMBLE]] != UNANSWERED]
        models[ref] = ScoredQueries(known, digits[known] != truth[known])
    policies = {name: ScoredQueries(asked, log.digits[asked] != truth[asked]) for name, asked in queries.items()}
    return DemoScores(plan, broken, policies, models)


def paired_difference(first: BoolArray, second: BoolArray) -> tuple[float, Interval]:
    """Difference of two error rates over the same queries, first less second, and its 95 % interval.

    Paired, since two models that err on the same pictures differ by much less than each of them is uncertain.

    Args:
        first: Whether the first was wrong, by query.
        second: The same of the second.
    """
    differences = first.astype(np.float64) - second.astype(np.float64)
    if not len(differences):
        return 0.0, (-1.0, 1.0)
    mean = float(differences.mean())
    half = Z * float(differences.std()) / math.sqrt(len(differences))
    return mean, (mean - half, mean + half)
