"""A policy that has stopped learning: what it would do in a context stays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from clipper_stream.replay.candidates.candidate import Targeted
from clipper_stream.replay.candidates.naming import named
from clipper_stream.replay.candidates.one_model import OneModel
from clipper_stream.replay.columns import DecisionColumns
from clipper_stream.replay.ensembles import Answering, with_ensemble
from clipper_stream.replay.learner import Standing, standing
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

    >>> from clipper_stream.replay.arrays import logged
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
            standing(self.policy, self.states.get(context, _NOTHING), self.models)
            for context in columns.contexts or (None,)
        ]
        if found[0].together:
            return self._together(columns, found)
        wide = columns.of_models([*columns.models, *(each for each in self.models if each not in columns.models)])
        rows = np.zeros((len(found), len(wide.models)))
        rows[:, [wide.models.index(model) for model in self.models]] = [each.target for each in found]
        return Targeted(columns=wide, target=rows[columns.context])

    def _together(self, columns: DecisionColumns, found: Sequence[Standing]) -> Targeted:
        weights = {code: each.choice.weights for code, each in enumerate(found)}
        wider = with_ensemble(columns, self.name, found[0].together, weights, self.answering, self.trials)
        return OneModel(model=self.name).targeted(wider)


_NOTHING = SelectionState()
