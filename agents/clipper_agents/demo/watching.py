"""Samples of the processes' own metrics, once a second: what the live view shows and the figures draw over time."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from clipper_agents.demo.plan import POLICIES, application_of
from clipper_agents.demo.traffic import Counts, Traffic
from clipper_agents.observability.exposition import Labels, Scrape, scrape

EVERY_S = 1.0
"""As often as routers report their weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Batches of one model so far.

    Attributes:
        rows: Rows in all of them.
        count: Number of batches.
        largest: Upper bound of the histogram bucket of the largest, a power of two.
        limit: Rows that a batch may have now.
    """

    rows: float
    count: float
    largest: float
    limit: float

    @property
    def mean(self) -> float:
        """Rows a batch."""
        return self.rows / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The run at one moment.

    Attributes:
        at_s: Seconds since the first query was due.
        sent: Queries sent.
        answered: Queries answered.
        weights: Share of trust by policy and model.
        batches: By model, `name:version`.
        lookups: Rows looked up in the router's cache.
        hits: Rows found there.
        defaults: Default answers.
        truths: Feedback records sent.
        feedback: Feedback records read by the router, by what became of them.
    """

    at_s: float
    sent: int
    answered: int
    weights: Mapping[str, Mapping[str, float]]
    batches: Mapping[str, Batches]
    lookups: float
    hits: float
    defaults: float
    truths: int
    feedback: Mapping[str, float]

    @property
    def hit_ratio(self) -> float:
        """Share of rows found in the cache, in [0, 1]."""
        return self.hits / self.lookups if self.lookups else 0.0


class Watcher:
    """Takes samples while the traffic runs.

    Args:
        ports: Metrics ports of all processes now.
        traffic: What is counted on this side.
        models: References of the models.
        on_sample: Called with each sample.

    Attributes:
        samples: In order of time.
    """

    def __init__(
        self,
        ports: Callable[[], Iterable[int]],
        traffic: Traffic,
        models: Iterable[str],
        on_sample: Callable[[Sample], None],
    ) -> None:
        self._ports, self._traffic, self._models, self._on_sample = ports, traffic, tuple(models), on_sample
        self.samples: list[Sample] = []

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            await self.take()
            await asyncio.sleep(EVERY_S)

    async def take(self) -> Sample:
        """Take a sample now; a process that does not serve at the moment is left out of it."""
        merged = await asyncio.to_thread(scrape_all, list(self._ports()))
        at_s = time.perf_counter() - self._traffic.start_s
        sample = sample_of(merged, self._models, self._traffic.counts, at_s)
        self.samples.append(sample)
        self._on_sample(sample)
        return sample


def scrape_all(ports: Iterable[int]) -> Scrape:
    """The samples of several processes in one; no two of them serve the same series."""
    samples: dict[tuple[str, Labels], float] = {}
    for port in ports:
        try:
            samples.update(scrape(port).samples)
        except OSError:
            continue
    return Scrape(samples)


def sample_of(scraped: Scrape, models: Iterable[str], counts: Counts, at_s: float) -> Sample:
    """A sample from the metrics of all processes."""
    return Sample(
        at_s=at_s,
        sent=counts.sent,
        answered=counts.answered,
        truths=counts.truths,
        weights={
            policy: scraped.by("model", "clipper_selection_weight", application=application_of(policy))
            for policy in POLICIES
        },
        batches={ref: _batches_of(scraped, ref) for ref in models},
        lookups=scraped.value("clipper_cache_lookups_total"),
        hits=scraped.value("clipper_cache_hits_total"),
        defaults=scraped.value("clipper_predictions_total", outcome="default"),
        feedback=scraped.by("outcome", "clipper_feedback_total"),
    )


def _batches_of(scraped: Scrape, ref: str) -> Batches:
    name, _, version = ref.partition(":")
    labels = {"model": name, "version": version}
    buckets = scraped.by("le", "clipper_batch_rows_bucket", **labels)
    return Batches(
        rows=scraped.value("clipper_batch_rows_sum", **labels),
        count=scraped.value("clipper_batch_rows_count", **labels),
        largest=_largest(buckets),
        limit=scraped.value("clipper_batch_limit_rows", **labels),
    )


def _largest(buckets: Mapping[str, float]) -> float:
    """The bound of the first bucket that holds everything: cumulative counts grow no more after it."""
    total = max(buckets.values(), default=0.0)
    return min((float(bound) for bound, count in buckets.items() if total and count == total), default=0.0)
