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


class ModelLifecycle:
    """Makes declared models askable, concurrently, by finding their requests topics or loading colocated ones.

    Versions that are leaving are removed once their last request has been sent, one task a version.
    """

    def __init__(
        self,
        registry: ApplicationRegistry,
        hosts: ReadyHosts,
        sender: RequestSender,
        colocated: ColocatedModels,
        metrics: RouterMetrics,
        tasks: TaskRunner,
    ) -> None:
        self._registry, self._hosts, self._sender, self._colocated = registry, hosts, sender, colocated
        self._metrics, self._tasks = metrics, tasks
        self._again_s: dict[str, float] = {}
        self._reasons: dict[str, str] = {}
        self._trying: dict[str, asyncio.Future[None]] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}

    async def reach(self) -> None:
        """Try every model that cannot be asked yet and was not tried just before; return when all are tried."""
        self.follow()
        await asyncio.gather(*self._trying.values())

    def follow(self) -> None:
        """Begin to try them, and to remove those that are leaving, without waiting: none must delay the next one."""
        unreached = {model.ref: model for model in self._registry.unreached}
        for known in (self._again_s, self._reasons):
            for ref in known.keys() - unreached.keys():
                del known[ref]
        now_s = asyncio.get_running_loop().time()
        for ref, model in unreached.items():
            if ref not in self._trying and self._again_s.get(ref, now_s) <= now_s:
                trying = self._trying[ref] = asyncio.ensure_future(self._reach(model))
                trying.add_done_callback(partial(self._tried, ref))
        for ref in self._registry.leaving:
            if ref not in self._leaving:
                task = self._leaving[ref] = self._tasks.watched(self._release(ref))
                task.add_done_callback(partial(self._released, ref))

    def _tried(self, ref: str, trying: "asyncio.Future[None]") -> None:
        del self._trying[ref]
        self._tasks.watch(trying)

    def _released(self, ref: str, _: "asyncio.Task[None]") -> None:
        del self._leaving[ref]

    async def _reach(self, model: ModelManifest) -> None:
        try:
            await (self._colocated.load(model) if model.colocated else self._sender.open(model.ref))
        except (KafkaError, OSError, SetupError) as error:
            self._again_s[model.ref] = asyncio.get_running_loop().time() + AGAIN_AFTER_S
            reason = f"{type(error).__name__}: {error}"
            if self._reasons.get(model.ref) != reason:
                self._reasons[model.ref] = reason
                logger.warning("model not reachable yet model=%s reason=%s", model.ref, reason)
        else:
            self._registry.reached(model.ref)

    async def _release(self, ref: str) -> None:
        while not self._sender.close(ref):
            await asyncio.sleep(LOOK_S)
            if ref not in self._registry.leaving:
                return  # it is back
        self._hosts.forget(ref)
        self._registry.left(ref)
        await self._colocated.unload(ref)
        model = self._registry.model(ref)
        if model is None or model.retired:
            self._metrics.forget_model(ref)
