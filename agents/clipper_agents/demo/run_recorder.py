"""What happens in a run: the answers query by query, samples of the metrics second by second, and the failure."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipper_agents.demo.models import TrainedModel, best_of
from clipper_agents.demo.plan import FAILED, DemoPlan, application_of
from clipper_agents.observability.exposition import Labels, Scrape, scrape
from clipper_loadgen.report import percentile_ms
from clipper_loadgen.run import LoadRun
from clipper_topics import codec
from clipper_topics.prediction import Prediction

UNANSWERED = -1
DIGITS = range(10)

SAMPLE_EVERY_S = 1.0
"""As often as routers report their weights."""
RECENT = 500
"""Queries that the percentiles of a sample are about: two seconds' worth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSample:
    """The run at one moment, `at_s` after its start; the latencies are of the latest queries."""

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

    def batches(self, ref: str, since: "DemoSample | None" = None) -> dict[str, float]:
        """Rows of the batches of a model since an earlier sample or the start: `mean`, `max`, and `limit_final` now.

        The largest is known to a power of two.
        """
        name, _, version = ref.partition(":")
        labels = {"model": name, "version": version}
        counted = self.metrics if since is None else self.metrics.since(since.metrics)
        buckets = counted.by("le", "clipper_batch_rows_bucket", **labels)
        total = max(buckets.values(), default=0.0)
        return {
            "mean": round(counted.value("clipper_batch_rows_sum", **labels) / total, 2) if total else 0.0,
            # counts are cumulative: the first bucket that holds everything is that of the largest
            "max": min((float(bound) for bound, count in buckets.items() if total and count == total), default=0.0),
            "limit_final": self.metrics.value("clipper_batch_limit_rows", **labels),
        }

    @property
    def cache(self) -> dict[str, int]:
        """Rows looked up in the router's cache, `lookups`, and found there, `hits`."""
        return {what: int(self.metrics.value(f"clipper_cache_{what}_total")) for what in ("lookups", "hits")}

    @property
    def defaults(self) -> float:
        """Default answers."""
        return self.metrics.value("clipper_predictions_total", outcome="default")

    @property
    def feedback(self) -> dict[str, int]:
        """Feedback records read by the router, by outcome."""
        return {outcome: int(count) for outcome, count in self.metrics.by("outcome", "clipper_feedback_total").items()}


class DemoRecorder:
    """Records a run: an observer of the load, and its follower.

    Its models are `TrainedModel`s, of which the best breaks while the file `flag` exists; `ports` says where processes
    serve their metrics now, and `on_sample` gets each sample while the load lasts.

    Attributes:
        run: The load, from its first query on.
        broken: Reference of the model that fails, `name:version`.
        samples: Metrics over time.
        digits: The digit of each answer, -1 where there is none.
        model_digits: By model, -1 where it was not asked or did not answer in time.
    """

    answers = codec.predictions
    run: LoadRun

    def __init__(
        self,
        plan: DemoPlan,
        models: Sequence[TrainedModel],
        flag: Path,
        ports: Callable[[], Iterable[int]] = tuple,
        on_sample: Callable[[DemoSample], None] = lambda _: None,
    ) -> None:
        self.plan, self.models, self.broken = plan, models, best_of(models).ref
        self._flag, self._ports, self._on_sample, self._is_broken = flag, ports, on_sample, False
        self.samples: list[DemoSample] = []
        self.digits: npt.NDArray[np.int8] = np.full(plan.queries, UNANSWERED, np.int8)
        self.model_digits = {model.ref: np.full_like(self.digits, UNANSWERED) for model in models}

    async def follow(self, run: LoadRun) -> None:
        """Take a sample every second."""
        self.run = run
        while True:
            self._on_sample(await self.sample())
            await asyncio.sleep(SAMPLE_EVERY_S)

    async def sample(self) -> DemoSample:
        """A sample of now, which is kept; a process that does not serve its metrics is left out."""
        metrics = await asyncio.to_thread(scrape_all, self._ports())
        ledger = self.run.ledger
        latencies_s = ledger.latencies_s(max(0, ledger.sent_count - RECENT))
        known = latencies_s[np.isfinite(latencies_s)]
        self.samples.append(
            DemoSample(
                metrics=metrics,
                at_s=time.perf_counter() - self.run.start_s,
                sent=ledger.sent_count,
                answered=ledger.answered_count,
                feedback_sent=self.run.feedback_sent,
                p50_ms=percentile_ms(known, 50.0),
                p99_ms=percentile_ms(known, 99.0),
            )
        )
        return self.samples[-1]

    def releasing(self, count: int) -> None:
        """Break or repair the model where a phase begins, before its first query is sent."""
        broken = self.plan.phase_of(count - 1) == FAILED
        if broken != self._is_broken:
            self._is_broken = broken
            if broken:
                self._flag.touch()
            else:
                self._flag.unlink(missing_ok=True)

    def answered(self, query: int, answer: Prediction) -> None:
        """Record the digits of a first answer."""
        self.digits[query] = _digit(answer.output)
        for one in answer.models:
            if (digits := self.model_digits.get(f"{one.model}:{one.version}")) is not None:
                digits[query] = _digit(one.output)


def scrape_all(ports: Iterable[int]) -> Scrape:
    """The metrics of several processes in one; no two of them serve the same series."""
    samples: dict[tuple[str, Labels], float] = {}
    for port in ports:
        try:
            samples.update(scrape(port).samples)
        except (OSError, HTTPException):  # it has ended, or ends now
            continue
    return Scrape(samples)


def _digit(output: Any) -> int:
    return int(output) if isinstance(output, int | float) and output in DIGITS else UNANSWERED
