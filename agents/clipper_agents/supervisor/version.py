"""The hosts of one model version, from its first manifest until nothing is left of it.

    declared --> topic --> hosts start --> serve --> retired or withdrawn --> routers have stopped, all is read
                              | cannot                                         --> hosts end --> group, topic, folders
                              '--> none until the manifest changes                 and reports are deleted

Rules of this file:
- One step at a time; what is wanted may change meanwhile, and then the next step goes by that.
- More or fewer replicas start or end single hosts. Any other change replaces the hosts one after the other; when the
  first of the new cannot start, the others go on as they are.
- A host ends only when no request is left for it, or when nobody waits for its answer any more; hosts of a version that
  other machines are to run instead end when one there has loaded the model.
- While no broker answers, nothing is deleted and nothing given up: it is tried again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from clipper_agents.control.plan import wanted_hosts
from clipper_agents.kafka.errors import KafkaUnreachable
from clipper_agents.observability.logging import event
from clipper_agents.supervisor.kafka_resources import KafkaResources
from clipper_agents.supervisor.process import ChildNotReady
from clipper_agents.supervisor.supervisor import Supervisor
from clipper_agents.supervisor.workers import Workers, host_names, model_of_host
from clipper_stream.errors import SetupError
from clipper_topics.manifests import ModelManifest

log = logging.getLogger(__name__)

SETTLE_S = 1.5
"""Routers follow the control topic within a quarter of a second; one that pauses longer asks nobody meanwhile."""
LOOK_S = 0.25
AGAIN_S = 2.0


class Version:
    """One version. `want` says what should be, `converge` makes it so.

    `withdraw` takes the report of a host back, by its name. In seconds, `patience_s` is the longest that anybody waits
    for an answer of this version, and `settle_s` how long routers have to hear that it is retired.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        workers: Workers,
        resources: KafkaResources,
        withdraw: Callable[[str], None],
        patience_s: Callable[[], float],
        settle_s: float,
    ) -> None:
        self._supervisor, self._workers, self._resources = supervisor, workers, resources
        self._withdraw, self._patience_s, self._settle_s = withdraw, patience_s, settle_s
        self._wanted: ModelManifest | None = None
        self._hosted: ModelManifest | None = None
        self._declared: tuple[ModelManifest | None, int] = None, 0
        self._left: ModelManifest | None = None
        self._changed = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether nothing is wanted, hosted or left to be deleted."""
        return self._wanted is None and self._hosted is None and self._left is None

    def started(self, model: ModelManifest) -> None:
        """Somebody has started its hosts already."""
        self._wanted = self._hosted = model
        self._declared = model, model.replicas

    def want(self, model: ModelManifest | None, replicas: int) -> None:
        """What is declared now, None: nothing any more, and how many of its replicas this machine is to run."""
        if (model, replicas) == self._declared:
            return
        self._declared = model, replicas
        here = model and msgspec.structs.replace(model, replicas=replicas)
        self._wanted = here if here is not None and wanted_hosts(here) else None
        if model is not None and self._hosted is None and self._wanted is None:
            if model.retired and replicas:
                self._left = msgspec.structs.replace(model, retired=False)  # perhaps it was while nobody looked
            self._forget(model)  # perhaps it had hosts here before this machine was away
        self._changed.set()

    async def converge(self) -> None:
        """Make it so; returns when it is, also when hosts cannot start until the manifest changes."""
        while self._wanted != self._hosted or self._left is not None:
            self._changed.clear()
            try:
                await self._step()
            except KafkaUnreachable as error:
                event(log, "trying again", logging.WARNING, reason=error)
                await self._wait(AGAIN_S)

    async def _step(self) -> None:
        wanted, hosted = self._wanted, self._hosted
        if hosted is not None and wanted is None:
            await self._retire(hosted)
        elif self._left is not None:
            await self._resources.remove(self._left)
            self._forget(self._left)
            self._left = None
        elif wanted is not None and hosted is None:
            await self._begin(wanted)
        elif wanted is not None and hosted is not None:
            alike = msgspec.structs.replace(wanted, replicas=hosted.replicas)
            await (self._resize(hosted, wanted) if alike == hosted else self._roll(alike))

    # --- starting ---------------------------------------------------------------------------------------------------
    async def _begin(self, model: ModelManifest) -> None:
        event(log, "model declared", model=model.ref, hosts=model.replicas)
        self._hosted = model
        try:
            await self._resources.provide(self._declared[0] or model)  # with partitions for hosts of other machines
            await self._unless_changed(self._supervisor.start(self._workers.hosts(model)))
        except KafkaUnreachable:
            self._hosted = None
            raise
        except SetupError as error:
            await self._give_up(model, self._names(model), error)

    async def _resize(self, hosted: ModelManifest, wanted: ModelManifest) -> None:
        before, after = self._names(hosted), self._names(wanted)
        event(log, "replicas changed", model=wanted.ref, before=len(before), after=len(after))
        await self._resources.provide(self._declared[0] or wanted)
        self._hosted = wanted
        fresh = [spec for spec in self._workers.hosts(wanted) if spec.name not in self._supervisor.children]
        try:
            await self._unless_changed(self._supervisor.start(fresh))
        except ChildNotReady as error:
            await self._give_up(wanted, [spec.name for spec in fresh], error)
        await self._end(hosted, before[len(after) :])
        self._forget(hosted, len(after))

    async def _roll(self, wanted: ModelManifest) -> None:
        event(log, "replacing hosts", model=wanted.ref, hosts=wanted.replicas)
        self._hosted = wanted
        for spec in self._workers.hosts(wanted):
            await self._supervisor.stop(spec.name)
            try:
                await self._unless_changed(self._supervisor.start([spec]))
            except ChildNotReady as error:
                await self._give_up(wanted, [spec.name], error)
                return
            if self._wanted is None or msgspec.structs.replace(self._wanted, replicas=wanted.replicas) != wanted:
                return

    async def _give_up(self, model: ModelManifest, names: Sequence[str], error: SetupError) -> None:
        """These hosts do not run; what they said of themselves stays, so that everybody sees why."""
        text = "hosts end until the model's manifest changes"
        event(log, text, logging.ERROR, model=model.ref, hosts=",".join(names), reason=error)
        await self._end(model, names)

    async def _unless_changed(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it, and leave it halfway when something else is wanted meanwhile."""
        working, changed = asyncio.ensure_future(work), asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({working, changed}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            changed.cancel()
            working.cancel()
            await asyncio.wait({working})

    # --- ending -----------------------------------------------------------------------------------------------------
    async def _retire(self, hosted: ModelManifest) -> None:
        text = "hosts move to other machines" if self._is_live else "model retired, finishing its requests"
        event(log, text, model=hosted.ref)
        since_s = time.monotonic()
        while not await self._is_finished(hosted, time.monotonic() - since_s):
            await self._wait(AGAIN_S if self._is_live else LOOK_S)
            if self._wanted is not None:
                return
        await self._end(hosted, self._running(hosted))
        self._hosted = None
        if self._is_live:
            self._forget(hosted)
        else:
            self._left = hosted
        self._workers.forget_model(hosted)

    async def _is_finished(self, hosted: ModelManifest, elapsed_s: float) -> bool:
        if self._is_live:
            return await self._resources.has_others(hosted, self._running(hosted))
        if elapsed_s < self._settle_s:
            return False
        serving = any(self._supervisor.children[name].fields for name in self._running(hosted))
        late = elapsed_s >= self._patience_s() + self._settle_s
        return late or not serving or await self._resources.is_consumed(hosted)

    async def _end(self, model: ModelManifest, names: Sequence[str]) -> None:
        running = [name for name in names if name in self._supervisor.children]
        if running:
            event(log, "ending hosts", model=model.ref, hosts=len(running))
            await self._supervisor.stop(*running)
        await self._resources.evict(model, names)

    def _forget(self, model: ModelManifest, first: int = 0) -> None:
        for name in self._names(model)[first:]:
            self._withdraw(name)
            self._workers.forget(name)

    def _names(self, model: ModelManifest) -> list[str]:
        return host_names(model, self._workers.machine)

    @property
    def _is_live(self) -> bool:
        """Whether the version is to have hosts, on this machine or others."""
        model, _ = self._declared
        return model is not None and wanted_hosts(model) > 0

    def _running(self, model: ModelManifest) -> list[str]:
        return [name for name in self._supervisor.children if model_of_host(name) == model.ref]

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()
