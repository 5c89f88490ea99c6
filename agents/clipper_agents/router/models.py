"""The life of a model version in a router: found when it is declared, let go when it is retired, withdrawn or moved.

Nobody asks a version any more from the moment that its manifest says so. What is left then is state of this process:
the lane of its requests, the topic in the producer's metadata, the engine of a colocated model, and metric series.
Answers that are still under way find their queries as before.
"""

import asyncio
import logging
from functools import partial

from aiokafka.errors import KafkaError

from clipper_agents.control.readiness import ReadyHosts
from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.applications import ApplicationRegistry
from clipper_agents.router.colocated_models import ColocatedModels
from clipper_agents.router.requests import RequestSender
from clipper_agents.streaming.app import TaskRunner
from clipper_stream.errors import SetupError
from clipper_topics.manifests import ModelManifest

logger = logging.getLogger(__name__)

AGAIN_AFTER_S = 2.0
"""A topic that was just created is found at the second try; a model that does not load is not loaded all the time."""
LOOK_S = 0.2


class ModelDiscovery:
    """Makes declared models askable, concurrently: finds their requests topics, or loads colocated ones."""

    def __init__(
        self, registry: ApplicationRegistry, lanes: RequestSender, colocated: ColocatedModels, tasks: TaskRunner
    ) -> None:
        self._registry, self._lanes, self._colocated, self._tasks = registry, lanes, colocated, tasks
        self._again_s: dict[str, float] = {}
        self._reasons: dict[str, str] = {}
        self._trying: dict[str, asyncio.Future[None]] = {}

    async def reach(self) -> None:
        """Try every model that cannot be asked yet and was not tried just before; return when all are tried."""
        await asyncio.gather(*self.begin())

    def begin(self) -> list["asyncio.Future[None]"]:
        """Begin to try them without waiting: a model that loads slowly must not delay the next one."""
        unreached = self._registry.unreached
        self._tidy({model.ref for model in unreached})
        now_s = asyncio.get_running_loop().time()
        for model in unreached:
            ref = model.ref
            if ref not in self._trying and self._again_s.get(ref, now_s) <= now_s:
                trying = self._trying[ref] = asyncio.ensure_future(self._reach(model))
                trying.add_done_callback(partial(self._tried, ref))
        return list(self._trying.values())

    def _tried(self, ref: str, trying: "asyncio.Future[None]") -> None:
        del self._trying[ref]
        self._tasks.watch(trying)

    def _tidy(self, unreached: set[str]) -> None:
        for known in (self._again_s, self._reasons):
            for ref in known.keys() - unreached:
                del known[ref]

    async def _reach(self, model: ModelManifest) -> None:
        try:
            await (self._colocated.load(model) if model.colocated else self._lanes.open(model.ref))
        except (KafkaError, OSError, SetupError) as error:
            self._again_s[model.ref] = asyncio.get_running_loop().time() + AGAIN_AFTER_S
            self._log(model.ref, f"{type(error).__name__}: {error}")
        else:
            self._registry.reached(model.ref)

    def _log(self, ref: str, reason: str) -> None:
        if self._reasons.get(ref) != reason:
            self._reasons[ref] = reason
            logger.warning("model not reachable yet model=%s reason=%s", ref, reason)


class ModelTeardown:
    """Removes versions that are leaving once their last request has been sent, one task a version."""

    def __init__(
        self,
        registry: ApplicationRegistry,
        hosts: ReadyHosts,
        lanes: RequestSender,
        colocated: ColocatedModels,
        metrics: RouterMetrics,
        tasks: TaskRunner,
    ) -> None:
        self._registry, self._hosts, self._lanes, self._colocated = registry, hosts, lanes, colocated
        self._metrics, self._tasks = metrics, tasks
        self._at_work: dict[str, asyncio.Task[None]] = {}

    def begin(self) -> None:
        """Begin to remove the versions that are leaving now, without waiting."""
        for ref in self._registry.leaving:
            if ref not in self._at_work:
                task = self._at_work[ref] = self._tasks.watched(self._release(ref))
                task.add_done_callback(partial(self._released, ref))

    def _released(self, ref: str, _: "asyncio.Task[None]") -> None:
        del self._at_work[ref]

    async def _release(self, ref: str) -> None:
        while not self._lanes.close(ref):
            await asyncio.sleep(LOOK_S)
            if ref not in self._registry.leaving:
                return  # it is back
        self._hosts.forget(ref)
        self._registry.left(ref)
        await self._colocated.unload(ref)
        model = self._registry.model(ref)
        if model is None or model.retired:
            self._metrics.forget_model(ref)
