"""Candidates: somebody who could have decided, whose loss is asked for.

A model, an ensemble and a frozen policy do not learn during replay, so every estimator applies to them. A policy that
learns is replayed through the log.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.log.columns import DecisionColumns, Floats
from clipper_stream.evaluation.log.ensembles import ANY_CONTEXT, Answering, with_ensemble
from clipper_stream.evaluation.sequential.replay import CandidateState, Place, features_of, policy_choices
from clipper_stream.selection.parameters import check_number
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState

_NOTHING = SelectionState()


class Targeted(NamedTuple):
    """What a candidate would have done with n decisions.

    Attributes:
        target: Probability with which it serves each of their models alone, rows summing to 1, (n, M).
    """

    columns: DecisionColumns
    target: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class OneModel:
    """A candidate that always asks the same model version, also one that was not there when the queries came.

    Attributes:
        model: Reference; that of a new model once its losses are a column (`DecisionColumns.with_model`).

    Source: Bottou et al., "Counterfactual reasoning and learning systems", JMLR 14, 2013, section 4.
    """

    model: str
    kind = "model"

    @property
    def name(self) -> str:
        return f"model {self.model}"

    @property
    def models(self) -> tuple[str, ...]:
        return (self.model,)

    def targeted(self, columns: DecisionColumns) -> Targeted:
        return _certain(_with_models(columns, self.models), self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """A fixed set of models whose outputs are combined, with weights that stay.

    Attributes:
        weights: Trust in each member, >= 0, not all 0, at least two.

    >>> Ensemble(weights={"svm:1": 1.0, "knn:1": 1.0}).name
    'ensemble svm:1+knn:1'

    Raises:
        InvalidSetting: fewer than two members, or a weight out of its bounds.

    Source: Crankshaw et al., "Clipper", NSDI 2017, section 5.2.
    """

    weights: Mapping[str, float]
    answering: Answering = field(default_factory=Answering)
    kind = "ensemble"

    def __post_init__(self) -> None:
        for model, weight in self.weights.items():
            check_number(f"weight of {model}", weight)
        if len(self.weights) < 2 or not any(self.weights.values()):  # noqa: PLR2004 (one is no ensemble)
            raise InvalidSetting(
                f"an ensemble of {list(self.weights)}: give at least two models, and one a weight above 0"
            )

    @property
    def name(self) -> str:
        alike = len(set(self.weights.values())) == 1
        members = (model if alike else f"{model}={weight:g}" for model, weight in self.weights.items())
        changed = [
            f"{option}={getattr(self.answering, attribute)}"
            for option, attribute in (("combiner", "combiner"), ("threshold", "confidence_threshold"))
            if getattr(self.answering, attribute) != getattr(Answering(), attribute)
        ]
        return ",".join([f"ensemble {'+'.join(members)}", *changed])

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.weights)

    def targeted(self, columns: DecisionColumns) -> Targeted:
        weights = {ANY_CONTEXT: self.weights}
        return _certain(with_ensemble(columns, self.name, self.models, weights, self.answering), self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPolicy:
    """A policy that has stopped learning, at one state a context.

    Attributes:
        states: What it has learned, by context; None is "without one", over all partitions. A context that is not
            there has learned nothing.

    Source: Dudik, Langford and Li, "Doubly robust policy evaluation and learning", ICML 2011, section 2 (a stationary
    policy).
    """

    policy: SelectionPolicy
    models: tuple[str, ...]
    states: Mapping[str | None, SelectionState] = field(default_factory=dict)
    answering: Answering = field(default_factory=Answering)
    kind = "fixed policy"

    @property
    def name(self) -> str:
        return f"frozen {_named(self.policy)}"

    def targeted(self, columns: DecisionColumns) -> Targeted:
        unlearned = policy_choices(self.policy, _NOTHING, self.models)
        codes, place = np.unique(columns.context, return_inverse=True)
        contexts = [columns.contexts[code] for code in codes.tolist()]
        found = [
            policy_choices(self.policy, self.states[context], self.models) if context in self.states else unlearned
            for context in contexts
        ]
        if together := unlearned.otherwise.together:
            weights = dict(zip(codes.tolist(), (each.otherwise.choice.weights for each in found), strict=True))
            return _certain(with_ensemble(columns, self.name, together, weights, self.answering), self.name)
        targets = np.array([each.otherwise.target for each in found]).reshape(-1, len(self.models))[place]
        if columns.features.shape[1] and unlearned.place is not None:
            for row, (features, number) in enumerate(zip(features_of(columns), place.tolist(), strict=True)):
                targets[row] = found[number].given(features).target
        wide = _with_models(columns, self.models)
        target = np.zeros((len(columns), len(wide.models)))
        target[:, [wide.models.index(model) for model in self.models]] = targets
        return Targeted(wide, target)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningPolicy:
    """A policy that learns on the way, from what it would have chosen itself, with its initial state.

    Attributes:
        start: State of each (context, partition) at the beginning of the log; what is not there begins with none.

    >>> from clipper_stream.selection.registry import make_policy
    >>> LearningPolicy(policy=make_policy("exp3", {"eta": 0.2}), models=("svm:1", "knn:1")).name
    'exp3:eta=0.2'

    Source: Dudik, Erhan, Langford and Li, "Sample-efficient nonstationary policy evaluation for contextual bandits",
    UAI 2012, section 2 (a policy of the history).
    """

    policy: SelectionPolicy
    models: tuple[str, ...]
    start: Mapping[Place, SelectionState] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return _named(self.policy)

    def learner(self) -> CandidateState:
        return CandidateState(self.policy, self.models, self.start)


StationaryCandidate: TypeAlias = OneModel | Ensemble | FixedPolicy
"""A candidate that does not learn during replay, so that every estimator applies to it."""
Candidate: TypeAlias = StationaryCandidate | LearningPolicy


def _with_models(columns: DecisionColumns, models: tuple[str, ...]) -> DecisionColumns:
    return columns.of_models([*columns.models, *(each for each in models if each not in columns.models)])


def _certain(columns: DecisionColumns, model: str) -> Targeted:
    target = np.zeros(columns.loss.shape)
    target[:, columns.models.index(model)] = 1.0
    return Targeted(columns, target)


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
