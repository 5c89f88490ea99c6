"""Errors by policy, by model and by phase, from what came back."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clipper_agents.demo.answers import NOTHING, Answers
from clipper_agents.demo.data import IntArray
from clipper_agents.demo.intervals import BoolArray, Interval, paired, wilson
from clipper_agents.demo.phases import FAILED, bounds_of
from clipper_agents.demo.plan import DemoPlan
from clipper_agents.demo.script import POLICY_NAMES

ENSEMBLE = "exp4"
"""Asks all models for every query: its log is what each of them alone would have answered."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Who was wrong about which query of one application, in the order of the queries.

    Attributes:
        queries: Index of each query.
        wrong: Whether the answer to it was wrong.
    """

    queries: IntArray
    wrong: BoolArray

    def within(self, phase: str, plan: DemoPlan) -> "Outcomes":
        """Those of one phase."""
        start, stop = bounds_of(phase, plan)
        chosen = (self.queries >= start) & (self.queries < stop)
        return Outcomes(self.queries[chosen], self.wrong[chosen])

    @property
    def error(self) -> float:
        """Share of wrong answers, in [0, 1]; 0 of none."""
        return float(self.wrong.mean()) if len(self.wrong) else 0.0

    @property
    def interval(self) -> Interval:
        """95 % interval of the error."""
        return wilson(int(self.wrong.sum()), len(self.wrong))


def policy_outcomes(answers: Answers, labels: list[int]) -> dict[str, Outcomes]:
    """Of each policy's application, over every query; one without an answer counts as wrong, as a default does."""
    truth = np.asarray(labels, np.int8)
    outcomes = {}
    for number, policy in enumerate(POLICY_NAMES):
        queries = np.arange(number, len(truth), len(POLICY_NAMES))
        outcomes[policy] = Outcomes(queries, answers.outputs[queries] != truth[queries])
    return outcomes


def model_outcomes(answers: Answers, labels: list[int]) -> dict[str, Outcomes]:
    """Of each model alone, over the ensemble's queries that it answered in time."""
    truth = np.asarray(labels, np.int8)
    queries = np.arange(POLICY_NAMES.index(ENSEMBLE), len(truth), len(POLICY_NAMES))
    outcomes = {}
    for ref, said in zip(answers.models, answers.said[:, queries], strict=True):
        heard = said != NOTHING
        outcomes[ref] = Outcomes(queries[heard], said[heard] != truth[queries[heard]])
    return outcomes


def best_in(phase: str, models: Mapping[str, Outcomes], plan: DemoPlan) -> str:
    """The model with the least error in a phase, known only afterwards."""
    return min(models, key=lambda ref: models[ref].within(phase, plan).error)


def versus_best(
    policy: Outcomes, models: Mapping[str, Outcomes], phase: str, plan: DemoPlan
) -> tuple[str, float, Interval]:
    """The best single model of a phase, the policy's error less its error over the same queries, and the interval."""
    ref = best_in(phase, models, plan)
    ours, theirs = policy.within(phase, plan), models[ref].within(phase, plan)
    _, first, second = np.intersect1d(ours.queries, theirs.queries, assume_unique=True, return_indices=True)
    return ref, *paired(ours.wrong[first], theirs.wrong[second])


def way_to_broken(policy: Outcomes, models: Mapping[str, Outcomes], broken: str, plan: DemoPlan) -> float:
    """How far a policy's error in the failure lies from the best whole model's (0) towards the broken one's (1)."""
    best = models[best_in(FAILED, models, plan)].within(FAILED, plan).error
    worst = models[broken].within(FAILED, plan).error
    ours = policy.within(FAILED, plan).error
    return (ours - best) / (worst - best) if worst > best else 0.0
