"""Makes declared models askable: finds their requests topics, or loads those that run in this process."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiokafka.errors import KafkaError

from clipper_agents.router.registry import Registry
from clipper_stream.errors import SetupError
from clipper_topics.manifests import ModelManifest

logger = logging.getLogger(__name__)

AGAIN_AFTER_S = 2.0
"""A topic that was just created is found at the second try; a model that does not load is not loaded all the time."""


class Reaching:
    """Reaches models that the registry has heard of, side by side, each once.

    Args:
        registry: Is told which models can be asked.
        find: Finds the requests topic of a model, by reference.
        load: Loads a colocated model.
    """

    def __init__(
        self,
        registry: Registry,
        find: Callable[[str], Awaitable[None]],
        load: Callable[[ModelManifest], Awaitable[None]],
    ) -> None:
        self._registry, self._find, self._load = registry, find, load
        self._again_s: dict[str, float] = {}
        self._reasons: dict[str, str] = {}
        self._lock = asyncio.Lock()

    async def reach(self) -> None:
        """Try every model that cannot be asked yet, unless it was tried a moment ago."""
        async with self._lock:
            now_s = asyncio.get_running_loop().time()
            due = [model for model in self._registry.unreached if self._again_s.get(model.ref, now_s) <= now_s]
            await asyncio.gather(*map(self._reach, due))

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
