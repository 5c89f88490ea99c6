"""A policy that has stopped learning: what it would do in a context stays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from clipper_stream.evaluation.candidates.candidate import Targeted
from clipper_stream.evaluation.candidates.one_model import OneModel
from clipper_stream.evaluation.candidates.policy_text import named
from clipper_stream.evaluation.log.columns import DecisionColumns, Floats
from clipper_stream.evaluation.log.ensembles import Answering, with_ensemble
from clipper_stream.evaluation.sequential.candidate_state import ReplayChoice, ReplayChoices, policy_choices
from clipper_stream.evaluation.sequential.replay_loop import features_of
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPolicy:
    """A policy at one state a context.

    Attributes:
        policy: Who chooses.
        models: Its candidates, in the application's order, at least one.
        states: What it has learned, by context; None is "without one", over all partitions. A context that is not
            there has learned nothing.
        answering: How outputs are combined, for a policy that serves several models.
        trials: Versions in the log that no policy chose.

    >>> from clipper_stream.evaluation.log.arrays import logged
    >>> from clipper_stream.selection.registry import make_policy
    >>> policy = make_policy("split", {"shares": {"m0:1": 3, "m1:1": 1}})
    >>> FixedPolicy(policy=policy, models=("m0:1", "m1:1")).targeted(logged([[1, 1]], [[0, 1]])).target.tolist()
    [[0.75, 0.25]]

    Source: Dudik, Langford and Li, "Doubly robust policy evaluation and learning", ICML 2011, section 2 (a stationary
    policy).
    """

    policy: SelectionPolicy
    models: tuple[str, ...]
    states: Mapping[str | None, SelectionState] = field(default_factory=dict)
    answering: Answering = field(default_factory=Answering)
    trials: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return f"frozen {named(self.policy)}"

    def targeted(self, columns: DecisionColumns) -> Targeted:
        found = [
            policy_choices(self.policy, self.states.get(context, _NOTHING), self.models)
            for context in columns.contexts or (None,)
        ]
        if found[0].otherwise.together:
            return self._together(columns, [each.otherwise for each in found])
        wide = columns.of_models([*columns.models, *(each for each in self.models if each not in columns.models)])
        target = np.zeros((len(columns), len(wide.models)))
        target[:, [wide.models.index(model) for model in self.models]] = _targets(columns, found)
        return Targeted(columns=wide, target=target)

    def _together(self, columns: DecisionColumns, found: Sequence[ReplayChoice]) -> Targeted:
        weights = {code: each.choice.weights for code, each in enumerate(found)}
        wider = with_ensemble(columns, self.name, found[0].together, weights, self.answering, self.trials)
        return OneModel(model=self.name).targeted(wider)


def _targets(columns: DecisionColumns, found: Sequence[ReplayChoices]) -> Floats:
    """Target of each decision among the policy's models, (n, K)."""
    targets = np.array([each.otherwise.target for each in found])[columns.context]
    if columns.features.shape[1] and found[0].place is not None:
        contexts = columns.context.tolist()
        for row, features in enumerate(features_of(columns)):
            targets[row] = found[contexts[row]].given(features).target
    return targets


_NOTHING = SelectionState()
