"""Samples of a run and of the processes' own metrics, once a second: for the live view and the figures over time."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from clipper_agents.demo.plan import application_of
from clipper_agents.observability.exposition import Labels, Scrape, scrape
from clipper_loadgen.report import percentile_ms
from clipper_loadgen.run import LoadRun

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
class DemoSample:
    """The run at one moment.

    Attributes:
        metrics: Of all processes.
        at_s: Seconds since the first query was due.
        sent: Queries sent.
        answered: Queries answered.
        feedback_sent: Feedback records sent.
        p50_ms: Median latency of the latest queries; None before there is one.
        p99_ms: Their 99th percentile.
    """

    metrics: Scrape
    at_s: float
    sent: int
    answered: int
    feedback_sent: int
    p50_ms: float | None = None
    p99_ms: float | None = None

    def weights(self, policy: str) -> dict[str, float]:
        """Share of trust in each model."""
        return self.metrics.by("model", "clipper_selection_weight", application=application_of(policy))

    def batches(self, ref: str) -> BatchTotals:
        """The batches of a model, `name:version`."""
        name, _, version = ref.partition(":")
        labels = {"model": name, "version": version}
        buckets = self.metrics.by("le", "clipper_batch_rows_bucket", **labels)
        total = max(buckets.values(), default=0.0)
        # counts are cumulative: the first bucket that holds everything is that of the largest
        largest = min((float(bound) for bound, count in buckets.items() if total and count == total), default=0.0)
        return BatchTotals(
            rows=self.metrics.value("clipper_batch_rows_sum", **labels),
            count=self.metrics.value("clipper_batch_rows_count", **labels),
            largest=largest,
            limit=self.metrics.value("clipper_batch_limit_rows", **labels),
        )

    @property
    def lookups(self) -> float:
        """Rows looked up in the router's cache."""
        return self.metrics.value("clipper_cache_lookups_total")

    @property
    def hits(self) -> float:
        """Rows found in the router's cache."""
        return self.metrics.value("clipper_cache_hits_total")

    @property
    def hit_ratio(self) -> float:
        """Share of rows found in the cache, in [0, 1]."""
        return self.hits / self.lookups if self.lookups else 0.0

    @property
    def defaults(self) -> float:
        """Default answers."""
        return self.metrics.value("clipper_predictions_total", outcome="default")

    @property
    def feedback(self) -> dict[str, float]:
        """Feedback records read by the router, by outcome."""
        return self.metrics.by("outcome", "clipper_feedback_total")

    @property
    def learned(self) -> float:
        """Feedback records read by the router."""
        return sum(self.feedback.values())


async def take_sample(run: LoadRun, ports: Iterable[int]) -> DemoSample:
    """A sample of now, from the metrics at these ports; one at which nobody serves is left out."""
    metrics = await asyncio.to_thread(scrape_all, ports)
    ledger = run.ledger
    latencies_s = ledger.latencies_s(max(0, ledger.sent_count - RECENT))
    known = latencies_s[np.isfinite(latencies_s)]
    return DemoSample(
        metrics=metrics,
        at_s=time.perf_counter() - run.start_s,
        sent=ledger.sent_count,
        answered=ledger.answered_count,
        feedback_sent=run.feedback_sent,
        p50_ms=percentile_ms(known, 50.0),
        p99_ms=percentile_ms(known, 99.0),
    )


def scrape_all(ports: Iterable[int]) -> Scrape:
    """The metrics of several processes in one; no two of them serve the same series."""
    samples: dict[tuple[str, Labels], float] = {}
    for port in ports:
        try:
            samples.update(scrape(port).samples)
        except OSError:
            continue
    return Scrape(samples)
