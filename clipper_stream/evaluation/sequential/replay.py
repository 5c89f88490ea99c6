"""What every way to walk a log has in common: its decisions in order, a policy that learns on the way, what is kept.

Rules of this file:
- Rows of state are those of the router: one a (context, partition). Without a context the partitions' rows are summed,
  in partition order; with one, all its queries are in one partition.
- A feedback is learned when it came, never before its decision. Of the same millisecond, decisions come first.
- The sum over partitions is known everywhere at once. Routers hear of each other's totals some hundred milliseconds
  later.
- Random numbers are a function of the seed and the query's place in the log, but of another stream than those that a
  router draws: with the same numbers, whom the log asked would say what the candidate draws.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from heapq import heappop, heappush
from itertools import repeat
from typing import NamedTuple, TypeAlias

import numpy as np

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.log.columns import Bools, DecisionColumns, Floats
from clipper_stream.evaluation.log.configuration import Configuration
from clipper_stream.evaluation.log.known_losses import known_losses
from clipper_stream.selection.distribution import ActionDistribution
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.rng import RandomSource, query_rng
from clipper_stream.selection.state import SelectionState, merge
from clipper_stream.selection.sufficient_statistics import Features

Losses = Mapping[str, float]
Place = tuple[str | None, int]
"""Context and partition of a row of state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRun:
    """Per-decision results of one replay, as arrays of shape (n, ...).

    Its loss is sum(numerator) / sum(denominator), over all runs of a log.

    Attributes:
        target: Probability with which it would have served each of its models alone when the decision was made, (n, K);
            0 where it was not asked, or serves several.
        numerator: Weighed loss, (n,).
        denominator: Weight, (n,); 0 where the decision says nothing.
        learned: Decisions that the candidate learns from, when their feedback comes, (n,).

    Source: Owen, "Monte Carlo theory, methods and examples", 2013, section 9.2 (the self-normalised mean).
    """

    target: Floats
    numerator: Floats
    denominator: Floats
    learned: Bools

    @classmethod
    def blank(cls, rows: int, models: int) -> "ReplayRun":
        return cls(
            target=np.zeros((rows, models)),
            numerator=np.zeros(rows),
            denominator=np.zeros(rows),
            learned=np.zeros(rows, np.bool_),
        )


class ReplayedQuery(NamedTuple):
    """A decision whose truth is known, as a walk looks at it.

    `feedback_at_ms` is not before the decision, whatever the clocks say; `place` is context and partition; `members`
    are the models that the candidate has.
    """

    row: int
    at_ms: int
    place: Place
    query_offset: int
    feedback_at_ms: int
    feedback_offset: int
    members: tuple[str, ...]
    features: tuple[float, ...] = ()


def queries_in_order(
    columns: DecisionColumns, wanted: Bools, members: Callable[[Configuration], tuple[str, ...]]
) -> Iterator[ReplayedQuery]:
    """The wanted decisions by the time of their making; of equal times, as they stand in the columns."""
    order = np.argsort(columns.at_ms, kind="stable")
    order = order[wanted[order]]
    later = np.maximum(columns.feedback_at_ms, columns.at_ms)
    contexts = columns.contexts
    arrays = (
        columns.at_ms, columns.context, columns.partition, columns.query_offset, later, columns.feedback_offset,
        columns.revision,
    )  # fmt: skip
    given = features_of(columns.take(order)) if columns.features.shape[1] else repeat((), len(order))
    of_revision = cache(lambda revision: members(columns.config(revision)))
    for row, at_ms, context, partition, query, feedback_at_ms, feedback, revision, features in zip(
        order.tolist(), *(array[order].tolist() for array in arrays), given, strict=True
    ):
        place = contexts[context], partition
        yield ReplayedQuery(row, at_ms, place, query, feedback_at_ms, feedback, of_revision(revision), features)


def features_of(columns: DecisionColumns) -> list[tuple[float, ...]]:
    """Of each decision's query, without what stands for nothing behind them."""
    counts = (~np.isnan(columns.features)).sum(axis=1).tolist()
    return [tuple(row[:count]) for row, count in zip(columns.features.tolist(), counts, strict=True)]


class ReplayChoice(NamedTuple):
    """What the policy does while its state stays the same."""

    choice: ActionDistribution
    target: tuple[float, ...]
    together: tuple[str, ...]


ReplayChoices: TypeAlias = Callable[[Features], ReplayChoice]
"""What the policy does for a query with these features; empty: a query without any."""


class CandidateState:
    """The states of a candidate on its way through a log: it acts on the feedback that has arrived."""

    def __init__(
        self, policy: SelectionPolicy, models: Sequence[str], start: Mapping[Place, SelectionState] | None = None
    ) -> None:
        if not models:
            raise InvalidSetting(f"policy {policy.name!r} has no model to choose from: name at least one")
        self.models = tuple(models)
        self.policy = policy
        self._number = 0  # of the feedback: orders what one record, or one made-up offset, says of several decisions
        self._states: dict[Place, SelectionState] = dict(start or {})
        self._partitions = sorted(partition for context, partition in self._states if context is None)
        self._standings: dict[Place, dict[tuple[str, ...], ReplayChoices]] = defaultdict(dict)
        self._coming: list[tuple[int, int, int, int, ReplayedQuery, Losses, Losses]] = []

    def choice_for(self, query: ReplayedQuery) -> ReplayChoice:
        """Return what the policy would do for a query, once it has learned all that came before."""
        self.advance(query.at_ms)
        return self.standing(*query.place, query.features, query.members)

    def standing(
        self, context: str | None, partition: int, features: Features = (), members: tuple[str, ...] | None = None
    ) -> ReplayChoice:
        """Return what the policy would do among these models, None: all, for a query of this kind."""
        chosen = self.models if members is None else members
        known = self._standings[context, partition if context is not None else 0]
        if chosen not in known:
            known[chosen] = policy_choices(self.policy, self.state(context, partition), chosen, self.models)
        return known[chosen](features)

    def state(self, context: str | None, partition: int) -> SelectionState:
        """Return the state of a context, or the sum over all partitions without one."""
        if context is not None:
            return self._states.get((context, partition), _NOTHING)
        if len(self._partitions) == 1:
            return self._states[None, self._partitions[0]]
        return merge(self._states[None, number] for number in self._partitions)

    def expect(self, query: ReplayedQuery, losses: Losses, propensities: Losses) -> None:
        """Schedule feedback that arrives later."""
        self._number += 1
        order = (query.feedback_at_ms, query.place[1], query.feedback_offset, self._number)
        heappush(self._coming, (*order, query, losses, propensities))

    def advance(self, now_ms: float) -> None:
        """Learn from all feedback that came before this time, in milliseconds since the epoch."""
        while self._coming and self._coming[0][0] < now_ms:
            *_, query, losses, propensities = heappop(self._coming)
            place, before = query.place, self._states.get(query.place)
            if before is None and place[0] is None:
                self._partitions = sorted([*self._partitions, place[1]])
            at_ms, features = query.feedback_at_ms, query.features
            self._states[place] = self.policy.observe_at(at_ms, before or _NOTHING, losses, propensities, features)
            self._standings.pop((place[0], place[1] if place[0] is not None else 0), None)

    def learn_all(self, log: Iterable[DecisionColumns]) -> Mapping[Place, SelectionState]:
        """Learn from all feedback of a log, whoever decided, as a router does; return the states."""
        for columns in log:
            known = known_losses(columns)
            for query in queries_in_order(columns, np.any(known.weight, axis=1), lambda _: ()):
                weights, losses = (dict(zip(columns.models, each[query.row].tolist(), strict=True)) for each in known)
                scored = {model: 1.0 / weight for model, weight in weights.items() if weight}
                self.expect(query, {model: losses[model] for model in scored}, scored)
            self.advance(int(columns.at_ms.max(initial=0)))
        self.advance(np.inf)
        return self._states


def policy_choices(
    policy: SelectionPolicy, state: SelectionState, members: Sequence[str], models: Sequence[str] = ()
) -> ReplayChoices:
    """Return what the policy does in one state among its members, as probabilities of `models`; empty: the same."""
    by_features, of = policy.by_features(state, members), models or members
    otherwise = _standing(policy, by_features.otherwise if by_features else policy.prepare(state, members), of)
    if by_features is None:
        return lambda _: otherwise
    choices, place = [_standing(policy, each, of) for each in by_features.choices], by_features.place
    return lambda features: choices[place(features)] if features else otherwise


def _standing(policy: SelectionPolicy, prepared: ActionDistribution, models: Sequence[str]) -> ReplayChoice:
    alone = {
        decision.served[0]: decision.served_propensity for decision in prepared.decisions if len(decision.served) == 1
    }
    sets = [decision.served for decision in prepared.decisions if len(decision.served) != 1]
    if sets and len(prepared.decisions) > 1:
        what = f"policy {policy.name!r} draws among {len(prepared.decisions)} sets of models"
        raise InvalidSetting(f"{what}: give one that serves one model, or always the same ones")
    return ReplayChoice(prepared, tuple(alone.get(model, 0.0) for model in models), sets[0] if sets else ())


def replay_rng(seed: int, partition: int, query_offset: int) -> RandomSource:
    """The random numbers of replay for one query."""
    return query_rng(seed, f"replay/{partition}-{query_offset}")


_NOTHING = SelectionState()
