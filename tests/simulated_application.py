"""An application in one process: models that err at known rates, partitions that learn apart, feedback that is late."""

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clipper_stream.feedback.update import LoggedDecision, fold
from clipper_stream.feedback.values import Label
from clipper_stream.selection.distribution import ActionDistribution
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.rng import query_rng
from clipper_stream.selection.state import SelectionState, merge

LATE = 50  # queries until the feedback about one arrives
STALE = 10  # queries until a router looks at the partitions' totals again


@dataclass
class SimulatedApplication:
    """`run` serves queries one after the other; `served` and `shares` then tell what happened."""

    policy: SelectionPolicy
    candidates: Sequence[str]
    partitions: int = 4
    seed: int = 0
    states: list[SelectionState] = field(default_factory=list)
    served: list[tuple[str, ...]] = field(default_factory=list)
    shares: list[Mapping[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.states = [SelectionState()] * self.partitions
        self._world = random.Random(self.seed)
        self._waiting: deque[tuple[int, LoggedDecision]] = deque()

    def run(self, queries: int, error_rates: Sequence[float]) -> None:
        for _ in range(queries):
            if len(self.served) % STALE == 0:
                self._prepared = self.prepared()
            self._serve(error_rates)
            if len(self._waiting) > LATE:
                partition, decision = self._waiting.popleft()
                learned = fold(self.states[partition], decision, Label(0), self.policy, "zero_one")
                self.states[partition] = learned.state

    def prepared(self) -> ActionDistribution:
        return self.policy.prepare(merge(self.states), self.candidates)

    def _serve(self, error_rates: Sequence[float]) -> None:
        decision = self._prepared.select(query_rng(self.seed, f"0-{len(self.served)}"))
        outputs = {
            model: int(self._world.random() < rate) for model, rate in zip(self.candidates, error_rates, strict=True)
        }
        logged = LoggedDecision(
            outputs={model: outputs[model] for model in decision.models},
            propensities=dict(zip(decision.models, decision.propensities, strict=True)),
            served=decision.served,
            served_propensity=decision.served_propensity,
        )
        self._waiting.append((self._world.randrange(self.partitions), logged))
        self.served.append(decision.served)
        self.shares.append(self._prepared.weights)
