"""The hosts of all models that the control topic declares: started, replaced and ended while traffic flows.

A manifest that is none, or names a model that this deployment may not load, is refused: what it replaced goes on.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import ConsumerRecord

from clipper_agents.admin.manifests import Manifests, refusal
from clipper_agents.observability.logging import event
from clipper_agents.streaming.follower import Follower
from clipper_agents.supervisor.errors import ChildNotReady
from clipper_agents.supervisor.supervisor import Supervisor
from clipper_agents.supervisor.workers import Workers
from clipper_stream.models.loading import check_declared
from clipper_topics.connection import KafkaConnection
from clipper_topics.control import Manifest
from clipper_topics.manifests import ModelManifest

log = logging.getLogger(__name__)


class Fleet:
    """Hosts by model version. A version that cannot start is left out until its manifest changes.

    Args:
        supervisor: Keeps the hosts.
        workers: Knows their command lines.
    """

    def __init__(self, supervisor: Supervisor, workers: Workers) -> None:
        self._supervisor, self._workers = supervisor, workers
        self._hosted: dict[str, ModelManifest] = {}
        self._published = Manifests(accept=self._accept)
        self._changed = asyncio.Event()

    async def start(self, models: Iterable[ModelManifest]) -> None:
        """Start the hosts of these models.

        Raises:
            ChildNotReady: one of them cannot.
        """
        starting = list(models)
        self._hosted |= {model.ref: model for model in starting}
        await self._supervisor.start([spec for model in starting for spec in self._workers.hosts(model)])

    async def reconcile(self, published: Mapping[str, ModelManifest]) -> None:
        """End the hosts of models that are gone or changed, and start those of new and changed ones."""
        going = [model for ref, model in self._hosted.items() if published.get(ref) != model]
        for model in going:
            del self._hosted[model.ref]
        await asyncio.gather(*map(self._end, going))
        coming = [model for ref, model in published.items() if ref not in self._hosted]
        await asyncio.gather(*map(self._try, coming))

    async def follow(self, kafka: KafkaConnection, topic: str) -> None:
        """Reconcile with the control topic, again at each change, until cancelled."""
        follower = Follower(kafka, topic, self._take)
        await follower.start()
        try:
            await follower.caught_up.wait()
            while True:
                self._changed.clear()
                await self.reconcile(dict(self._published.models))
                await self._changed.wait()
        finally:
            await follower.stop()

    def _take(self, records: list[ConsumerRecord[Any, Any]]) -> None:
        for record in records:
            reason = self._published.apply(record.key, record.value, record.headers)
            if reason is not None:
                event(log, "manifest refused", logging.ERROR, **refusal(record, reason))
        self._changed.set()

    def _accept(self, manifest: Manifest) -> None:
        if isinstance(manifest, ModelManifest):
            declared = (manifest.runtime, manifest.uri, manifest.sha256, manifest.parameters)
            check_declared(*declared, self._workers.allowed, self._workers.files)

    async def _try(self, model: ModelManifest) -> None:
        event(log, "model declared", model=model.ref, hosts=0 if model.colocated else model.replicas)
        try:
            await self.start([model])
        except ChildNotReady as error:
            message = "model has no hosts until its manifest changes"
            event(log, message, logging.ERROR, model=model.ref, reason=error)
            await self._end(model)

    async def _end(self, model: ModelManifest) -> None:
        prefix = f"host.{model.name}.{model.version}."
        names = [name for name in self._supervisor.children if name.startswith(prefix)]
        if names:
            event(log, "ending hosts", model=model.ref, hosts=len(names))
            await self._supervisor.stop(*names)
