"""Runs what the pure router asks for, and wakes it when outputs arrive and when its next deadline comes."""

import asyncio
import time
from collections.abc import Iterable

from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.colocated_models import ColocatedModels
from clipper_agents.router.deferred_queries import DeferredQueries
from clipper_agents.router.prediction_log import UNKNOWN_APPLICATION, PredictionLog
from clipper_agents.router.query_consumer import BoundedQueryConsumer
from clipper_agents.router.requests import RequestSender
from clipper_agents.streaming.app import TaskRunner
from clipper_stream.query import Effects, Failure, OutputPiece, Request, Router
from clipper_topics.frames import OutputFrame

ROWS_GATHERED_TOGETHER = 256
"""What an output completes is encoded at once, while it is in the processor's cache."""


class EffectRunner:
    """Sends requests and answers; keeps one timer, at the earliest deadline.

    Outputs come back here from where requests go. So `connect` closes this ring once all of it is built.

    Args:
        router: Decides.
        consumer: Hears that there may be room for more.
        deferred: Takes queries for which there was no room.
        prediction_log: Records and sends answers.
        metrics: Counts.
        tasks: Runs what a deadline brings.
    """

    _sender: RequestSender
    _colocated: ColocatedModels

    def __init__(
        self,
        router: Router,
        consumer: BoundedQueryConsumer,
        deferred: DeferredQueries,
        prediction_log: PredictionLog,
        metrics: RouterMetrics,
        tasks: TaskRunner,
    ) -> None:
        self._router, self._prediction_log = router, prediction_log
        self._consumer, self._deferred = consumer, deferred
        self._metrics, self._tasks = metrics, tasks
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0
        self._expiring: asyncio.Task[None] | None = None

    def connect(self, sender: RequestSender, colocated: ColocatedModels) -> None:
        """Send requests for models in this process to `colocated`, and all others to `sender`."""
        self._sender, self._colocated = sender, colocated

    def has_deferred(self, partition: int, query_id: str) -> bool:
        """Return whether a query with this id may be among those that wait to be read again."""
        return self._deferred.has_id(partition, query_id)

    def run(self, effects: Effects) -> None:
        """Carry out all effects, without waiting."""
        self._prediction_log.put(effects.answers, effects.audits, effects.block_answers)
        take = self._colocated.take
        self._sender.put(request for request in effects.requests if not take(request))
        self._sender.forget(effects.forgotten)
        for application, queries in effects.queries.items():
            self._metrics.counter("clipper_queries_total", application or UNKNOWN_APPLICATION).inc(queries)
        for ref, lookups in effects.lookups.items():
            self._metrics.counter("clipper_cache_lookups_total", ref).inc(lookups)
            self._metrics.counter("clipper_cache_hits_total", ref).inc(effects.hits.get(ref, 0))
        if effects.coalesced:
            self._metrics.counter("clipper_coalesced_total").inc(effects.coalesced)
        self._deferred.put(effects.deferred)
        self._consumer.update_room()
        self._set_timer()

    def gather(self, frames: Iterable[OutputFrame]) -> None:
        """Hand outputs to the waiting queries, a few hundred rows at a time, and run the effects."""
        pieces: list[OutputPiece] = []
        rows = 0
        for frame in frames:
            failures = {row.row: Failure(row.reason, row.explanation) for row in frame.failed}
            for start in range(0, len(frame.outputs), ROWS_GATHERED_TOGETHER):
                outputs = frame.outputs[start : start + ROWS_GATHERED_TOGETHER]
                pieces.append(OutputPiece(frame.frame, frame.row0 + start, outputs, failures))
                rows += len(outputs)
                if rows >= ROWS_GATHERED_TOGETHER:
                    self._gather(pieces)
                    pieces, rows = [], 0
        if pieces:
            self._gather(pieces)

    def fail(self, request: Request, reason: str) -> None:
        """Fail all rows of a request that could not be sent."""
        rows = len(request.rows)
        piece = OutputPiece(request.frame, 0, [None] * rows, dict.fromkeys(range(rows), Failure("error", reason)))
        self.run(self._router.gather([piece], time.time()))

    def end_audits(self) -> None:
        """End the oldest audits where there are so many that they take the room of queries."""
        if self._router.surplus_audits > 0:
            self.run(self._router.end_audits(time.time()))

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _gather(self, pieces: list[OutputPiece]) -> None:
        began_s = time.perf_counter()
        self.run(self._router.gather(pieces, time.time()))
        took_s = time.perf_counter() - began_s
        self._metrics.histogram("clipper_stage_latency_seconds", "combine").observe(took_s)

    def _set_timer(self) -> None:
        due_s = self._router.next_deadline_s
        if due_s is None or (self._timer is not None and self._due_s <= due_s):
            return
        self.stop()
        self._due_s = due_s
        self._timer = asyncio.get_running_loop().call_later(max(0.0, due_s - time.time()), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._expiring = self._tasks.watched(self._expire())  # a task, so that a bug of ours is heard of

    async def _expire(self) -> None:
        self.run(self._router.expire(time.time()))
