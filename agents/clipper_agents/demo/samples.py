"""Samples of a run and of the processes' own metrics, once a second: for the live view and the figures over time."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from clipper_agents.demo.plan import POLICIES, application_of
from clipper_agents.observability.exposition import Labels, Scrape, scrape
from clipper_agents.supervisor.deployment import Deployment
from clipper_loadgen.report import percentile_ms
from clipper_loadgen.run import LoadRun

SAMPLE_EVERY_S = 1.0
"""As often as routers report their weights."""
RECENT = 500
"""Queries that the percentiles of a sample are about: two seconds' worth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTotals:
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
class LoadProgress:
    """How far a run is, by its own counts.

    Attributes:
        at_s: Seconds since the first query was due.
        sent: Queries sent.
        answered: Queries answered.
        feedback_sent: Feedback records sent.
        p50_ms: Median latency of the latest queries; None before there is one.
        p99_ms: Their 99th percentile.
    """

    at_s: float
    sent: int
    answered: int
    feedback_sent: int
    p50_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSample:
    """The run at one moment.

    Attributes:
        load: How far the run is.
        weights: Share of trust by policy and model.
        batches: By model, `name:version`.
        lookups: Rows looked up in the router's cache.
        hits: Rows found there.
        defaults: Default answers.
        feedback: Feedback records read by the router, by outcome.
    """

    load: LoadProgress
    weights: Mapping[str, Mapping[str, float]]
    batches: Mapping[str, BatchTotals]
    lookups: float
    hits: float
    defaults: float
    feedback: Mapping[str, float]

    @property
    def hit_ratio(self) -> float:
        """Share of rows found in the cache, in [0, 1]."""
        return self.hits / self.lookups if self.lookups else 0.0

    @property
    def learned(self) -> float:
        """Feedback records that the router has dealt with."""
        return sum(self.feedback.values())


def progress_of(run: LoadRun, now_s: float) -> LoadProgress:
    """How far a run is now, by its clock."""
    ledger = run.ledger
    latencies_s = ledger.latencies_s(max(0, ledger.sent_count - RECENT))
    known = latencies_s[np.isfinite(latencies_s)]
    return LoadProgress(
        at_s=now_s - run.start_s,
        sent=ledger.sent_count,
        answered=ledger.answered_count,
        feedback_sent=run.feedback_sent,
        p50_ms=percentile_ms(known, 50.0),
        p99_ms=percentile_ms(known, 99.0),
    )


async def take_sample(deployment: Deployment, run: LoadRun, models: Iterable[str]) -> DemoSample:
    """A sample of now; a process that does not serve at the moment is left out of it."""
    ports = [child.metrics_port for child in deployment.children.values() if child.metrics_port is not None]
    merged = await asyncio.to_thread(scrape_all, ports)
    return sample_of(merged, models, progress_of(run, time.perf_counter()))


def scrape_all(ports: Iterable[int]) -> Scrape:
    """The samples of several processes in one; no two of them serve the same series."""
    samples: dict[tuple[str, Labels], float] = {}
    for port in ports:
        try:
            samples.update(scrape(port).samples)
        except OSError:
            continue
    return Scrape(samples)


def sample_of(scraped: Scrape, models: Iterable[str], load: LoadProgress) -> DemoSample:
    """A sample from the metrics of all processes."""
    return DemoSample(
        load=load,
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


def _batches_of(scraped: Scrape, ref: str) -> BatchTotals:
    name, _, version = ref.partition(":")
    labels = {"model": name, "version": version}
    buckets = scraped.by("le", "clipper_batch_rows_bucket", **labels)
    total = max(buckets.values(), default=0.0)
    # counts are cumulative: the first bucket that holds everything is that of the largest
    largest = min((float(bound) for bound, count in buckets.items() if total and count == total), default=0.0)
    return BatchTotals(
        rows=scraped.value("clipper_batch_rows_sum", **labels),
        count=scraped.value("clipper_batch_rows_count", **labels),
        largest=largest,
        limit=scraped.value("clipper_batch_limit_rows", **labels),
    )
