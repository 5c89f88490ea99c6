"""What a run of load is: everything that is decided before the first query."""

from dataclasses import KW_ONLY, dataclass
from typing import Literal

from clipper_loadgen.datasets import Dataset
from clipper_stream.errors import InvalidSetting
from clipper_topics.codec import JSON, MSGPACK
from clipper_topics.manifests import InputSpec

CONTENT_TYPES = {"json": JSON, "msgpack": MSGPACK}
MAX_QUERIES = 5_000_000
"""Every query's row, context and times are held in memory, about 300 bytes a query."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Load on one application, or on several in turn.

    >>> LoadPlan("digits", dataset=InputSpec(shape=[64]), rate_per_s=200.0, duration_s=20.0).expected_queries
    4000.0

    Attributes:
        application: Name of a registered application; of several with the same input, queries go to each in turn.
        mode: `rate`: an open loop, queries at times fixed before the run.
            `saturation`: as fast as `outstanding` allows.
            `bounded`: as `rate`, but later where `outstanding` queries have no answer; a latency counts from the time
            at which its query was sent, so this mode does not measure a pipeline under load.
        rate_per_s: Queries a second, except in `saturation` mode.
        duration_s: Seconds of measured load, except in `saturation` mode.
        warmup_s: Seconds of the same load before it, sent and answered but not counted.
        arrivals: `poisson` or `constant`.
        queries: Number of queries in `saturation` mode.
        outstanding: Most queries without an answer in `saturation` and `bounded` mode.
        dataset: What to ask, or the spec of random rows.
        contexts: Number of contexts; 0: queries without a context, keyed by their input.
        repeat_ratio: Share of queries whose input repeats a recent one, in [0, 1].
        recent: Repeats are drawn from so many queries before.
        feedback_delay_s: Mean time from an answer to its feedback; None: no feedback. Without labels a feedback is a
            loss of 0.
        encoding: `json` or `msgpack`, of queries and feedback.
        linger_s: Wait so long before sending, for queries to share a request; in `rate` mode latencies contain it.
        drain_s: A query counts as missing when no answer at all has come for so long.
        seed: Seeds every draw.
    """

    application: str | tuple[str, ...]
    _: KW_ONLY
    dataset: Dataset | InputSpec
    mode: Literal["rate", "saturation", "bounded"] = "rate"
    rate_per_s: float = 200.0
    duration_s: float = 20.0
    warmup_s: float = 0.0
    arrivals: Literal["poisson", "constant"] = "poisson"
    queries: int = 50_000
    outstanding: int = 5_000
    contexts: int = 0
    repeat_ratio: float = 0.0
    recent: int = 1_000
    feedback_delay_s: float | None = None
    encoding: Literal["json", "msgpack"] = "json"
    linger_s: float = 0.0
    drain_s: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.expected_queries <= MAX_QUERIES:  # nor is it NaN
            raise InvalidSetting(f"{self.expected_queries:.0f} queries: at most {MAX_QUERIES}; shorten the run")

    @property
    def applications(self) -> tuple[str, ...]:
        """The applications, of which query `n` goes to number `n` modulo their count."""
        return (self.application,) if isinstance(self.application, str) else self.application

    @property
    def most_outstanding(self) -> int:
        """Most queries without an answer; all of them in `rate` mode."""
        return MAX_QUERIES if self.mode == "rate" else self.outstanding

    @property
    def expected_queries(self) -> float:
        """Number of queries, with random arrivals its mean, with the warm-up."""
        return self.queries if self.mode == "saturation" else self.rate_per_s * (self.warmup_s + self.duration_s)
