"""A policy that learns on the way, from what it would have chosen itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from clipper_stream.evaluation.candidates.policy_text import named
from clipper_stream.evaluation.sequential.candidate_state import CandidateState, Place
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningPolicy:
    """A policy with its initial state.

    Attributes:
        policy: Who chooses and learns.
        models: Its candidates, in the application's order, at least one.
        start: State of each (context, partition) at the beginning of the log; what is not there begins with none.
        audit_ratio: Share of the queries that ask all candidates, in [0, 1]; only a simulation knows what they say.

    >>> from clipper_stream.selection.registry import make_policy
    >>> LearningPolicy(policy=make_policy("exp3", {"eta": 0.2}), models=("svm:1", "knn:1")).name
    'exp3:eta=0.2'

    Source: Dudik, Erhan, Langford and Li, "Sample-efficient nonstationary policy evaluation for contextual bandits",
    UAI 2012, section 2 (a policy of the history).
    """

    policy: SelectionPolicy
    models: tuple[str, ...]
    start: Mapping[Place, SelectionState] = field(default_factory=dict)
    audit_ratio: float = 0.0

    @property
    def name(self) -> str:
        return named(self.policy)

    def learner(self) -> CandidateState:
        """Return the candidate's state before the first decision."""
        return CandidateState(self.policy, self.models, self.start, self.audit_ratio)
