"""Versions on trial beside a policy's choice: canaries serve instead of it, shadows are asked besides.

Rules of this file:
- The policy chooses as if nothing were on trial, with a random number of its own: a trial that comes or goes changes no
  other choice. A second number says what is tried.
- The second number lies in [0, 1). Canaries have intervals one after another from 0 on. A shadow of share s is asked
  where the number is at least 1 - s. So shares are nested (a shadow is asked only with those of larger shares), trials
  fall on the same queries as seldom as they can, and there is one treatment a trial, not one a combination.
- What a policy chose is asked whether or not a canary serves: both have a loss on the same query, and no propensity of
  a candidate depends on the trials.
- Without candidates nobody but canaries is asked: there is no answer that a shadow could be compared with.
- Where contexts are drawn, each has a number for each canary, and is that of the first whose part of what the earlier
  ones left is larger. So a share that grows keeps its contexts, and sends those of no canary back to the models.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from clipper_stream.errors import InvalidSetting
from clipper_stream.selection.distribution import ActionDistribution, Decision
from clipper_stream.selection.parameters import check_number
from clipper_stream.selection.rng import RandomSource, query_rng

_LEAST_SHARE = 2.0**-40  # less is what rounding leaves of shares that sum to 1; nobody means a share as small


class PolicyChoice(Protocol):
    """What `ActionDistribution` and `ChoiceWithTrials` have in common: all that a query needs."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Share of trust in each candidate, summing to 1, in candidate order."""
        ...

    @property
    def certain(self) -> Decision | None:
        """The decision, when there is only one."""
        ...

    def select(self, rng: RandomSource) -> Decision:
        """Draw a decision."""
        ...


NOBODY = ActionDistribution({}, (Decision(models=(), propensities=(), served=(), served_propensity=1.0),), ())
"""The choice where there are no candidates."""


@dataclass(frozen=True, slots=True)
class Treatment:
    """The versions on trial that a share of the queries asks.

    Attributes:
        models: Asked besides, the canary first.
        propensities: Probability with which any query asks each of them, in (0, 1].
        canary: Who serves instead of the policy's choice; None: nobody does.
        serving: Probability that this canary serves; without one, that none does.
    """

    models: tuple[str, ...]
    propensities: tuple[float, ...]
    canary: str | None
    serving: float

    def of(self, decision: Decision) -> Decision:
        """The policy's decision, completed by this treatment."""
        canary = self.canary
        return Decision(
            models=decision.models + self.models,
            propensities=decision.propensities + self.propensities,
            served=decision.served if canary is None else (canary,),
            served_propensity=self.serving * (decision.served_propensity if canary is None else 1.0),
        )


@dataclass(frozen=True, slots=True)
class ChoiceWithTrials:
    """A policy's choice with trials.

    Attributes:
        choice: What the policy would do.
        treatments: What is tried, by intervals of the second random number.
        bounds: Ends of all intervals but the last.

    >>> from clipper_stream.selection.distribution import forced_decision
    >>> from clipper_stream.selection.rng import query_rng
    >>> choice = ActionDistribution({"svm:1": 1.0}, (forced_decision(["svm:1"]),), ())
    >>> choice = with_trials(choice, {"svm:2": 0.25}, {"knn:1": 0.5})
    >>> choice.bounds, choice.treatments[2]
    ((0.25, 0.5), Treatment(models=('knn:1',), propensities=(0.5,), canary=None, serving=0.75))
    >>> choice.select(query_rng(7, "3-41")).propensities
    (1.0, 0.25)

    Source: Bottou et al., "Counterfactual reasoning and learning systems", JMLR 14, 2013, section 4 (weights are exact
    whatever is random in a decision, as long as its distribution is known).
    """

    choice: ActionDistribution
    treatments: tuple[Treatment, ...]
    bounds: tuple[float, ...]

    @property
    def weights(self) -> Mapping[str, float]:
        """Share of trust in each candidate; a version on trial has none."""
        return self.choice.weights

    @property
    def certain(self) -> Decision | None:
        """The decision, when there is only one: nothing has to be drawn."""
        chosen = None if self.bounds else self.choice.certain
        return None if chosen is None else self.treatments[0].of(chosen)

    def select(self, rng: RandomSource) -> Decision:
        """Draw the policy's decision with one number of the source, and the treatment with the next."""
        chosen = self.choice.select(rng)
        return self.treatments[bisect_right(self.bounds, rng.random())].of(chosen)


def context_number(seed: int, application: str, ref: str, context: str) -> float:
    """The number of a context, uniform in [0, 1), that says whether a canary answers it: another one for each version.

    >>> context_number(7, "digits", "svm:2", "ada") == context_number(7, "digits", "svm:2", "ada")
    True

    Source: Tang, Agarwal, O'Brien and Meyer, "Overlapping experiment infrastructure", KDD 2010, section 3.1 (a hash of
    experiment and unit); `query_rng`.
    """
    return query_rng(seed, f"context/{application}/{ref}/{context}").random()


def with_trials(
    choice: ActionDistribution,
    canaries: Mapping[str, float],
    shadows: Mapping[str, float],
    number_of: Callable[[str], float] | None = None,
) -> PolicyChoice:
    """Add trials to a choice, which has its audits already and is `NOBODY` without candidates.

    A canary may be a shadow too, of the queries that no canary answers. Without trials the choice is returned as it is.

    Args:
        choice: Of the policy.
        canaries: Shares in [0, 1] of the queries, or contexts, that each answers, together 1 at most.
        shadows: Shares of the queries that ask each besides.
        number_of: The context's number for a canary; None: each query draws.

    Raises:
        InvalidSetting: a share is out of its bounds, or canaries have more than all queries.
    """
    for ref, share in [*canaries.items(), *shadows.items()]:
        check_number(f"share of {ref}", share, most=1.0)
    serving = {ref: share for ref, share in canaries.items() if share >= _LEAST_SHARE}
    ends = (0.0, *accumulate(serving.values()))
    room = {ref: min(share, 1.0 - ends[-1]) if ref in serving else share for ref, share in shadows.items()}
    asked = {ref: share for ref, share in room.items() if share >= _LEAST_SHARE and choice.decisions[0].models}
    if not serving and not asked:
        return choice
    if ends[-1] > 1.0 + _LEAST_SHARE:
        raise InvalidSetting(f"canaries answer {ends[-1]:g} of the queries together: let their shares sum to 1 at most")
    left, refs, treatments = 1.0 - ends[-1], (*serving, None), []
    if number_of is not None:
        ends, refs = (0.0,), (_canary_of(number_of, serving),)
    edges = sorted({end for end in (*ends, *(1.0 - share for share in asked.values())) if end <= 1.0 - _LEAST_SHARE})
    of_all = {ref: serving.get(ref, 0.0) + asked.get(ref, 0.0) for ref in (*serving, *asked)}
    for edge in edges:
        canary = refs[bisect_right(ends, edge) - 1]
        besides = {ref: of_all[ref] for ref, share in asked.items() if edge >= 1.0 - share}
        models = besides if canary is None else {canary: of_all[canary], **besides}
        served = left if canary is None else serving[canary]
        treatments.append(Treatment(tuple(models), tuple(models.values()), canary, served))
    return ChoiceWithTrials(choice, tuple(treatments), tuple(edges[1:]))


def _canary_of(number_of: Callable[[str], float], canaries: Mapping[str, float]) -> str | None:
    left = 1.0
    for ref, share in canaries.items():
        if number_of(ref) * left < share + _LEAST_SHARE:
            return ref
        left -= share
    return None
