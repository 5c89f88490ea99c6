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
        sent_s: When each query was sent, in seconds from the start; NaN where it was not.
        latencies_s: Of each query, infinite without an answer.
    """

    plan: DemoPlan
    broken: str
    policies: dict[str, Outcomes]
    models: dict[str, Outcomes]
    samples: Sequence[Sample]
    sent_s: FloatArray
    latencies_s: FloatArray
