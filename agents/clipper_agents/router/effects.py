"""Carries out what the pure router asks for, and wakes it at its next deadline."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.prediction_log import PredictionLog
from clipper_agents.router.requests import RequestSender
from clipper_stream.query import Effects, Request, Router

UNKNOWN_APPLICATION = "unknown"
"""Label of all queries to applications that are not registered, lest a typo adds a metric series."""


class EffectRunner:
    """Sends requests and answers; keeps one timer, at the earliest deadline.

    Args:
        router: Decides.
        recorder: Records and sends answers.
        sender: Sends requests to hosts.
        colocated: Takes a request for a model in this process; False when the model is elsewhere.
        metrics: Counts.
        spawn: Runs a coroutine beside everything else; its failure ends the process.
    """

    def __init__(
        self,
        router: Router,
        recorder: PredictionLog,
        sender: RequestSender,
        colocated: Callable[[Request], bool],
        metrics: RouterMetrics,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._router, self._recorder, self._sender = router, recorder, sender
        self._colocated, self._metrics, self._spawn = colocated, metrics, spawn
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0
        self._expiring: asyncio.Task[None] | None = None

    def carry_out(self, effects: Effects) -> None:
        """Do it all; nothing here waits."""
        self._recorder.put(effects.answers, effects.audits)
        self._sender.put(request for request in effects.requests if not self._colocated(request))
        self._sender.forget(effects.forgotten)
        for application, queries in effects.queries.items():
            self._metrics.count_queries(application or UNKNOWN_APPLICATION, queries)
        for ref, lookups in effects.lookups.items():
            self._metrics.count_cache(ref, lookups, effects.hits.get(ref, 0))
        if effects.coalesced:
            self._metrics.count_coalesced(effects.coalesced)
        self._set_timer()

    def stop(self) -> None:
        """Wake the router no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self) -> None:
        due_s = self._router.next_deadline_s
        if due_s is None or (self._timer is not None and self._due_s <= due_s):
            return
        self.stop()
        self._due_s = due_s
        self._timer = asyncio.get_running_loop().call_later(max(0.0, due_s - time.time()), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._expiring = self._spawn(self._expire())  # a task, so that a bug of ours is heard of

    async def _expire(self) -> None:
        self.carry_out(self._router.expire(time.time()))
