"""Candidates: somebody who could have decided, whose loss is asked for.

A model, an ensemble and a frozen policy do not learn during replay, so every estimator applies to them. A policy that
learns is replayed through the log.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.log.columns import Bools, DecisionColumns, Floats, distinct_rows
from clipper_stream.evaluation.log.configuration import Configuration
from clipper_stream.evaluation.log.ensembles import with_ensemble
from clipper_stream.evaluation.log.joint_propensity import joint_propensity
from clipper_stream.evaluation.sequential.replay import (
    CandidateState,
    Place,
    ReplayChoices,
    features_of,
    policy_choices,
)
from clipper_stream.selection.parameters import check_number
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState

_NOTHING = SelectionState()
_NEW = ""
"""A context that has learned nothing; none is called so."""
OPTIONS = {"combiner": "combiner", "threshold": "confidence_threshold", "default": "default_output"}
"""Options of an ensemble in a text, and fields of configurations."""


class Targeted(NamedTuple):
    """What a candidate would have done with n decisions: rows of probabilities of serving each model alone, (n, M)."""

    columns: DecisionColumns
    target: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class OneModel:
    """A candidate that always asks the same model version, also a new one, whose losses are a column of their own."""

    model: str
    kind = "model"

    @property
    def name(self) -> str:
        return f"model {self.model}"

    def targeted(self, columns: DecisionColumns) -> Targeted:
        return _among(columns, (self.model,), 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """A fixed set of models whose outputs are combined as the application did then, with weights that stay.

    Attributes:
        weights: Trust in each member, >= 0, not all 0, at least two.
        changed: What is otherwise than in the application's configuration.

    >>> Ensemble(weights={"svm:1": 1.0, "knn:1": 1.0}).name
    'ensemble svm:1+knn:1'

    Raises:
        InvalidSetting: fewer than two members, or a weight out of its bounds.
    """

    weights: Mapping[str, float]
    changed: Mapping[str, Any] = field(default_factory=dict)
    kind = "ensemble"

    def __post_init__(self) -> None:
        for model, weight in self.weights.items():
            check_number(f"weight of {model}", weight)
        if len(self.weights) < 2 or not any(self.weights.values()):  # noqa: PLR2004 (one is no ensemble)
            raise InvalidSetting(
                f"an ensemble of {list(self.weights)}: give at least two models, and one a weight above 0"
            )
        Configuration(**self.changed)

    @property
    def name(self) -> str:
        alike = len(set(self.weights.values())) == 1
        members = (model if alike else f"{model}={weight:g}" for model, weight in self.weights.items())
        changed = (f"{option}={self.changed[name]}" for option, name in OPTIONS.items() if name in self.changed)
        return ",".join([f"ensemble {'+'.join(members)}", *changed])

    def targeted(self, columns: DecisionColumns) -> Targeted:
        return _among(with_ensemble(columns, self.name, [self.weights], changed=self.changed), [self.name], 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPolicy:
    """A policy that has stopped learning, at one state a context.

    Attributes:
        models: Among which it chooses.
        named: Whether it does so always; else among those of them that were the application's candidates then.
        states: What it has learned, by context; None is "without one", over all partitions. A context that is not
            there has learned nothing.
    """

    policy: SelectionPolicy
    models: tuple[str, ...]
    named: bool = False
    states: Mapping[str | None, SelectionState] = field(default_factory=dict)
    kind = "fixed policy"

    @property
    def name(self) -> str:
        return f"frozen {_named(self.policy)}"

    def targeted(self, columns: DecisionColumns) -> Targeted:
        pairs, place = distinct_rows(np.column_stack([columns.revision, columns.context]))
        asked = [(columns.config(revision), columns.contexts[context]) for revision, context in pairs.tolist()]
        choices = cache(self._choices)
        found = [choices(members_of(self, config), name if name in self.states else _NEW) for config, name in asked]
        unlearned = choices(self.models, _NEW)
        if unlearned(()).together:
            weights = [each(()).choice.weights for each in (*found, unlearned)]
            return _among(with_ensemble(columns, self.name, weights, place), [self.name], 1.0)
        targets = np.array([each(()).target for each in found]).reshape(-1, len(self.models))[place]
        if columns.features.shape[1] and self.policy.by_features(_NOTHING, self.models) is not None:
            for row, (features, number) in enumerate(zip(features_of(columns), place.tolist(), strict=True)):
                targets[row] = found[number](features).target
        return _among(columns, self.models, targets)

    def _choices(self, members: tuple[str, ...], context: str | None) -> ReplayChoices:
        return policy_choices(self.policy, self.states.get(context, _NOTHING), members, self.models)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningPolicy:
    """A policy that learns on the way, from what it would have chosen itself, with its initial state.

    Attributes:
        models, named: As of `FixedPolicy`.
        start: State of each (context, partition) at the beginning of the log; what is not there begins with none.

    >>> from clipper_stream.selection.registry import make_policy
    >>> LearningPolicy(policy=make_policy("exp3", {"eta": 0.2}), models=("svm:1", "knn:1")).name
    'exp3:eta=0.2'

    Source: Dudik, Erhan, Langford and Li, "Sample-efficient nonstationary policy evaluation for contextual bandits",
    UAI 2012, section 2 (a policy of the history).
    """

    policy: SelectionPolicy
    models: tuple[str, ...]
    named: bool = False
    start: Mapping[Place, SelectionState] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return _named(self.policy)

    def learner(self) -> CandidateState:
        return CandidateState(self.policy, self.models, self.start)

    def targeted(self, columns: DecisionColumns) -> Targeted:
        """All that it may ask at each decision, alike; what it serves together is one model more."""
        members = member_rows(self, columns)
        if policy_choices(self.policy, _NOTHING, self.models)(()).together:
            joint = joint_propensity(columns, self.models, members)
            return _among(columns.with_model(self.name, np.full(len(columns), np.nan), joint), [self.name], 1.0)
        return _among(columns, self.models, members / members.sum(axis=1, keepdims=True))


def members_of(candidate: FixedPolicy | LearningPolicy, config: Configuration) -> tuple[str, ...]:
    """The models among which a policy chooses under a configuration; all where its candidates are not known."""
    if candidate.named:
        return candidate.models
    return tuple(model for model in config.models if model in candidate.models) or candidate.models


def member_rows(candidate: LearningPolicy, columns: DecisionColumns) -> Bools:
    """Which of a policy's models are `members_of` it at each decision, (n, K)."""
    return columns.configured(lambda config: np.isin(candidate.models, members_of(candidate, config)))


StationaryCandidate: TypeAlias = OneModel | Ensemble | FixedPolicy
"""A candidate that does not learn during replay, so that every estimator applies to it."""
Candidate: TypeAlias = StationaryCandidate | LearningPolicy


def _among(columns: DecisionColumns, models: Sequence[str], shares: Floats | float) -> Targeted:
    """Decisions with a column for each of these models, and the probabilities with which one of them serves, (n, K)."""
    wide = columns.of_models([*columns.models, *(each for each in models if each not in columns.models)])
    target = np.zeros(wide.loss.shape)
    target[:, [wide.models.index(model) for model in models]] = shares
    return Targeted(wide, target)


def _named(policy: SelectionPolicy) -> str:
    """The text that a policy is parsed from: its name, and the parameters that do not have their defaults."""
    said: list[str] = []
    for each in fields(policy):  # type: ignore[arg-type]  # every policy is a dataclass
        value = getattr(policy, each.name)
        default = each.default_factory() if each.default_factory is not MISSING else each.default
        if value != default:
            pairs: Mapping[str, Any] = value if isinstance(value, Mapping) else {each.name: value}
            said += [f"{key}={one:g}" if isinstance(one, float) else f"{key}={one}" for key, one in pairs.items()]
    return policy.name + (f":{','.join(said)}" if said else "")
