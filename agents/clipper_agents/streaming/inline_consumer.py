"""Faust's consumer thread without the thread: aiokafka's consumer runs on the app's own event loop.

There is no hand-over of the interpreter lock then, and a call returns what is true now.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from clipper_agents.kafka.aiokafka_patches import LEAN
from clipper_agents.streaming.faust_logs import LIBRARY

FETCH_MAX_WAIT_MS = 100
"""A real broker answers a long poll as soon as there is data, so this only bounds how long a newly resumed partition
waits for a fetch that is under way without it."""
PREFETCH_BACKOFF_S = 0.005
"""aiokafka holds back fetches from a broker while it has undrained records of it; its default is 0.1 s."""


class InlineConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust's consumer thread without the thread: calls run at once on the app's loop."""

    logger = LIBRARY

    def __init__(self, *args: Any, loop: asyncio.AbstractEventLoop | None = None, **kwargs: Any) -> None:
        own = loop or asyncio.get_event_loop()
        super().__init__(*args, loop=own, thread_loop=own, **kwargs)

    async def start(self) -> None:
        """Start on this loop."""
        self._thread_started.set()
        await self._default_start()
        await self.on_thread_started()

    async def stop(self) -> None:
        """Stop on this loop."""
        if not self._stopped.is_set():
            self._stopped.set()
            await self.on_thread_stop()
            self.set_shutdown()
            await self._default_stop_futures()

    async def call_thread(self, fun: Any, *args: Any, **kwargs: Any) -> Any:
        """Call it here and now."""
        result = fun(*args, **kwargs)
        return await result if asyncio.iscoroutine(result) or asyncio.isfuture(result) else result

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        consumer._key_deserializer = LEAN
        return consumer

    async def on_start(self) -> None:
        """Start the consumer."""
        await super().on_start()
        self._ensure_consumer()._fetcher._prefetch_backoff = PREFETCH_BACKOFF_S

    def hold(self, partitions: Iterable[TP]) -> None:
        """Never fetch these partitions through the group's consumer: somebody else reads them."""
        self._ensure_consumer().pause(*(driver.ensure_aiokafka_TP(tp) for tp in partitions))
