"""A decision, and the distribution over decisions that it is drawn from.

Rules of this file:
- A propensity is the probability that this query asks this model, over everything random in the decision. Whatever
  is learned from a model's own output is weighed with it.
- What is learned from the answer as a whole (a loss that the application computed) is weighed with the probability of
  serving that answer's models. The two differ only where an audit asks more models than it serves.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from clipper_stream.selection.rng import RandomSource

UNDRAWABLE = 2.0**-53  # a number of 53 random bits cannot tell a smaller probability from none


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Which models to ask, whose outputs make the answer, and how probable that was.

    Attributes:
        models: References (`name:version`) of the models to ask, in candidate order.
        propensities: Probability with which this query asks each of them, in (0, 1], same order.
        served: Those of them whose outputs are combined into the answer, in candidate order.
        served_propensity: Probability that exactly these are served, in (0, 1].

    >>> forced_decision(["svm:1"]).propensities
    (1.0,)

    Source: Bottou et al., "Counterfactual reasoning and learning systems", JMLR 14, 2013, section 4.
    """

    models: tuple[str, ...]
    propensities: tuple[float, ...]
    served: tuple[str, ...]
    served_propensity: float

    def split(self) -> tuple["Decision", "Decision"]:
        """Split into the models whose outputs make the answer, and those asked for the log only.

        >>> decision = audited(one_of({"svm:1": 1.0, "knn:1": 0.0}, (1.0, 0.0)), 0.25).decisions[1]
        >>> [(part.models, part.propensities, part.served) for part in decision.split()]
        [(('svm:1',), (1.0,), ('svm:1',)), (('knn:1',), (0.25,), ())]
        """
        asked, chance = dict(zip(self.models, self.propensities, strict=True)), self.served_propensity
        served = tuple(asked.pop(model) for model in self.served)
        return (
            Decision(models=self.served, propensities=served, served=self.served, served_propensity=chance),
            Decision(models=tuple(asked), propensities=tuple(asked.values()), served=(), served_propensity=chance),
        )


@dataclass(frozen=True, slots=True)
class ActionDistribution:
    """The distribution over decisions that a policy derives from one state; valid until state or candidates change.

    Attributes:
        weights: Share of trust in each candidate, summing to 1, in candidate order.
        decisions: Every decision that can be drawn, by whom it serves.
        bounds: Cumulative probabilities of all decisions but the last.

    >>> prepared = one_of({"svm:1": 0.75, "knn:1": 0.25}, (0.75, 0.25))
    >>> [(decision.served, decision.served_propensity) for decision in prepared.decisions]
    [(('svm:1',), 0.75), (('knn:1',), 0.25)]

    Source: Crankshaw et al., "Clipper", NSDI 2017, section 5, listing 2 (`select`).
    """

    weights: Mapping[str, float]
    decisions: tuple[Decision, ...]
    bounds: tuple[float, ...]

    @property
    def certain(self) -> Decision | None:
        """The decision, when there is only one: nothing has to be drawn."""
        return None if self.bounds else self.decisions[0]

    def select(self, rng: RandomSource) -> Decision:
        """Draw a decision, with one number of the source."""
        return self.decisions[bisect_right(self.bounds, rng.random())]

    def select_each(self, numbers: Iterable[float]) -> list[Decision]:
        """The decision for each number, uniform in [0, 1)."""
        decisions, bounds = self.decisions, self.bounds
        return [decisions[bisect_right(bounds, number)] for number in numbers]


def forced_decision(models: Sequence[str]) -> Decision:
    """The decision of a query that names its models, made with probability 1.

    Not to be learned from: that the application wants this model for this query may say how hard the query is.
    """
    certain = (1.0,) * len(models)
    return Decision(models=tuple(models), propensities=certain, served=tuple(models), served_propensity=1.0)


def all_of(weights: Mapping[str, float]) -> ActionDistribution:
    """Ask every candidate, with probability 1."""
    return ActionDistribution(weights, (forced_decision(tuple(weights)),), ())


def one_of(weights: Mapping[str, float], probabilities: Iterable[float]) -> ActionDistribution:
    """Ask exactly one candidate, each with its probability, in the order of the weights and summing to 1."""
    drawn = [(model, p) for model, p in zip(weights, probabilities, strict=True) if p >= UNDRAWABLE]
    decisions = tuple(
        Decision(models=(model,), propensities=(p,), served=(model,), served_propensity=p) for model, p in drawn
    )
    return ActionDistribution(weights, decisions, _bounds(p for _, p in drawn))


def most_to(chosen: str, candidates: Sequence[str], exploration: float = 0.0) -> ActionDistribution:
    """Ask the chosen candidate, except for a share of the queries that is spread evenly over all.

    >>> most_to("b:1", ["a:1", "b:1"], exploration=0.5).weights
    {'a:1': 0.25, 'b:1': 0.75}
    """
    shares = with_exploration({model: 1.0 if model == chosen else 0.0 for model in candidates}, exploration)
    return one_of(shares, shares.values())


def with_exploration(weights: Mapping[str, float], exploration: float) -> dict[str, float]:
    """The weights, mixed with a uniform distribution of share `exploration`, in [0, 1]."""
    floor = exploration / len(weights)
    return {model: (1.0 - exploration) * weight + floor for model, weight in weights.items()}


def audited(prepared: ActionDistribution, ratio: float) -> ActionDistribution:
    """Add audits: the models that serve are chosen as before, and a share of the queries asks all candidates.

    Every model m is then asked with probability ratio + (1 - ratio) p(m), whether or not this query is an audit, and
    that is the propensity of each decision: a rarely served model is scored by every audit at a moderate weight,
    instead of rarely at a huge one. A decision that serves all is unchanged. The propensity holds only if every
    model asked is given until the deadline to answer: if the log closed with the served model's answer, slow models
    would be scored less often than it says.

    >>> prepared = audited(one_of({"svm:1": 0.75, "knn:1": 0.25}, (0.75, 0.25)), 0.5)
    >>> [(decision.models, decision.served) for decision in prepared.decisions[:2]]
    [(('svm:1',), ('svm:1',)), (('svm:1', 'knn:1'), ('svm:1',))]
    >>> prepared.decisions[1].propensities
    (0.875, 0.625)

    Source: Veach and Guibas, "Optimally combining sampling techniques for Monte Carlo rendering", SIGGRAPH 1995,
    section 3 (the balance heuristic: weigh by the probability over all techniques).
    """
    candidates = tuple(prepared.weights)
    asked = dict.fromkeys(candidates, ratio)
    for decision in prepared.decisions:
        for model in decision.models:
            asked[model] += (1.0 - ratio) * decision.served_propensity
    drawn = [
        (
            replace(decision, models=models, propensities=tuple(min(1.0, asked[model]) for model in models)),
            share * decision.served_propensity,
        )
        for decision in prepared.decisions
        for models, share in ((decision.models, 1.0 - ratio), (candidates, ratio))
        if share * decision.served_propensity >= UNDRAWABLE
    ]
    return ActionDistribution(prepared.weights, tuple(decision for decision, _ in drawn), _bounds(p for _, p in drawn))


def _bounds(probabilities: Iterable[float]) -> tuple[float, ...]:
    return tuple(accumulate(probabilities))[:-1]
