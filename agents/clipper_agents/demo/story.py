"""What the figures are drawn from."""

from collections.abc import Sequence
from dataclasses import dataclass

from clipper_agents.demo.data import FloatArray
from clipper_agents.demo.plan import DemoPlan
from clipper_agents.demo.scoring import Outcomes
from clipper_agents.demo.watching import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What the figures are drawn from.

    Attributes:
        plan: The run.
        broken: Reference of the model that failed.
        policies: Outcomes by policy.
        models: Outcomes of each model alone.
        samples: Metrics over time.
        due_s: When each query was due, in seconds from the start.
        latencies_s: Of each query, infinite without an answer.
    """

    plan: DemoPlan
    broken: str
    policies: dict[str, Outcomes]
    models: dict[str, Outcomes]
    samples: Sequence[Sample]
    due_s: FloatArray
    latencies_s: FloatArray
