"""Makes declared models askable: finds their requests topics, or loads those that run in this process."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from aiokafka.errors import KafkaError

from clipper_agents.router.applications import ApplicationRegistry
from clipper_stream.errors import SetupError
from clipper_topics.manifests import ModelManifest

logger = logging.getLogger(__name__)

AGAIN_AFTER_S = 2.0
"""A topic that was just created is found at the second try; a model that does not load is not loaded all the time."""


class ModelDiscovery:
    """Reaches models that the registry has heard of, side by side, each once.

    Args:
        registry: Is told which models can be asked.
        find: Finds the requests topic of a model, by reference.
        load: Loads a colocated model.
        watch: Looks at each attempt when it is done; its failure ends the process.
    """

    def __init__(
        self,
        registry: ApplicationRegistry,
        find: Callable[[str], Awaitable[None]],
        load: Callable[[ModelManifest], Awaitable[None]],
        watch: Callable[["asyncio.Future[None]"], None] = lambda _: None,
    ) -> None:
        self._registry, self._find, self._load, self._watch = registry, find, load, watch
        self._again_s: dict[str, float] = {}
        self._reasons: dict[str, str] = {}
        self._trying: dict[str, asyncio.Future[None]] = {}

    async def reach(self) -> None:
        """Try every model that cannot be asked yet, unless it was tried a moment ago; returns when all are tried."""
        await asyncio.gather(*self.begin())

    def begin(self) -> list["asyncio.Future[None]"]:
        """The same, without waiting: a model that takes long to load must not hold up one that comes after it."""
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
        self._watch(trying)

    def _tidy(self, unreached: set[str]) -> None:
        for known in (self._again_s, self._reasons):
            for ref in known.keys() - unreached:
                del known[ref]

    async def _reach(self, model: ModelManifest) -> None:
        try:
            await (self._load(model) if model.colocated else self._find(model.ref))
        except (KafkaError, OSError, SetupError) as error:
            self._again_s[model.ref] = asyncio.get_running_loop().time() + AGAIN_AFTER_S
            self._log(model.ref, f"{type(error).__name__}: {error}")
        else:
            self._registry.reached(model.ref)

    def _log(self, ref: str, reason: str) -> None:
        if self._reasons.get(ref) != reason:
            self._reasons[ref] = reason
            logger.warning("model not reachable yet model=%s reason=%s", ref, reason)
