"""Lets go of versions that are retired, withdrawn, or run elsewhere now: when their last request has gone out.

Nobody asks them any more from the moment that their manifest says so. What is left then is state of this process: the
lane of their requests, the topic in the producer's metadata, the engine of a colocated model, and metric series.
Answers that are still under way find their queries as before.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Protocol

from clipper_agents.control.readiness import ReadyHosts
from clipper_agents.router.applications import ApplicationRegistry

LOOK_S = 0.2


class Sender(Protocol):
    """Sends requests: a `RequestSender`."""

    def close(self, ref: str) -> bool: ...


class ModelTeardown:
    """One task a version that is leaving.

    Args:
        registry: Knows which are leaving, and is told when they have left.
        hosts: Forgets who was ready.
        sender: Closes their lanes.
        unload: Ends a colocated model, once it has answered what it was asked.
        forget: Takes the metric series of a version back.
        spawn: Runs a coroutine beside everything else; its failure ends the process.
        look_s: How often it is looked whether the last request has gone out.
    """

    def __init__(
        self,
        registry: ApplicationRegistry,
        hosts: ReadyHosts,
        sender: Sender,
        unload: Callable[[str], Awaitable[None]],
        forget: Callable[[str], None],
        spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"],
        look_s: float = LOOK_S,
    ) -> None:
        self._registry, self._hosts, self._sender = registry, hosts, sender
        self._unload, self._forget, self._spawn, self._look_s = unload, forget, spawn, look_s
        self._at_work: dict[str, asyncio.Task[None]] = {}

    def begin(self) -> None:
        """Let go of what is leaving now; nothing here waits."""
        for ref in self._registry.leaving:
            if ref not in self._at_work:
                task = self._at_work[ref] = self._spawn(self._release(ref))
                task.add_done_callback(partial(self._released, ref))

    def _released(self, ref: str, _: "asyncio.Task[None]") -> None:
        del self._at_work[ref]

    async def _release(self, ref: str) -> None:
        while not self._sender.close(ref):
            await asyncio.sleep(self._look_s)
            if ref not in self._registry.leaving:
                return  # it is back
        self._hosts.forget(ref)
        self._registry.left(ref)
        await self._unload(ref)
        model = self._registry.model(ref)
        if model is None or model.retired:
            self._forget(ref)
