"""Recovery in the order that loses nothing: read the logs, then pause, settle, seek, and only then resume.

Faust resumes the inputs, seeks, and then clears its queues. Records delivered in between are cleared, the read position
jumps forward, and the jump is booked as processed. Here inputs stay paused until every position is right.
Changelogs are not read through the group's consumer, record by record, but in bulk by a plain one.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery

from clipper_agents.streaming.table import TransactionalTable

logger = logging.getLogger(__name__)

SEEK_WITHIN_S = 30.0

Restore = Callable[[set[int]], Awaitable[None]]
"""Called with the partitions that this process owns now, while inputs are paused."""


class StateLock:
    """Held while state changes: of one partition for a step, of all for recovery; no step waits for another's."""

    def __init__(self) -> None:
        self._partitions: dict[int, asyncio.Lock] = {}
        self._recovery = asyncio.Lock()

    @asynccontextmanager
    async def of(self, partition: int) -> AsyncIterator[None]:
        """Hold the state of one partition."""
        if partition not in self._partitions:
            async with self._recovery:  # so that none is new while all are held
                self._partitions.setdefault(partition, asyncio.Lock())
        async with self._partitions[partition]:
            yield

    @asynccontextmanager
    async def of_all(self) -> AsyncIterator[None]:
        """Hold the state of all partitions."""
        async with self._recovery, AsyncExitStack() as held:
            for lock in self._partitions.values():
                await held.enter_async_context(lock)
            yield


class BulkRecovery(Recovery):  # type: ignore[misc]
    """Restores tables and the app's own state before any input is read."""

    _rebalance = -1

    async def on_rebalance(self, *args: Any, **kwargs: Any) -> None:
        """Note which rebalance the next recovery belongs to: two of them may have the same generation in Kafka."""
        self._rebalance = self.app.rebalances
        await super().on_rebalance(*args, **kwargs)

    async def _build_offsets(self, consumer: Any, tps: Any, destination: Any, title: str) -> None:
        """Give Faust nothing to read: changelogs are restored in `on_recovery_completed`."""
        await super()._build_offsets(consumer, tps, destination, title)
        if title == "active":
            for tp in tps:  # a Counter: its update() adds
                destination[tp] = self.active_highwaters[tp]

    async def on_recovery_completed(self, generation_id: int = 0) -> None:  # noqa: ARG002 (Faust's signature)
        """Restore, then let the inputs flow; ends early when another rebalance has begun."""
        app, consumer = self.app, self.app.consumer
        assignment = consumer.assignment()
        inputs = {tp for tp in assignment if not self._is_changelog_tp(tp)}
        app.inputs = frozenset(tp.partition for tp in inputs)
        consumer.pause_partitions(inputs)
        consumer._thread.hold(assignment - inputs)
        async with app.state_lock.of_all():
            await self._restore()
        await app.on_rebalance_complete.send()
        self._set_recovery_ended()
        for table in self.tables.values():
            await table.on_recovery_completed(self.actives_for_table[table], self.standbys_for_table[table])
        if app.rebalances != self._rebalance:
            return
        await consumer.settle()
        if assignment:
            await asyncio.wait_for(consumer.perform_seek(), SEEK_WITHIN_S)
        if app.rebalances != self._rebalance:
            return
        app.begin_generation()
        self.completed.set()
        app.flow_control.resume()
        consumer.resume_flow()
        consumer.resume_partitions(inputs)
        await app._fetcher.maybe_start()
        self.tables.on_actives_ready()
        self.tables.on_standbys_ready()
        app.on_rebalance_end()
        app.inputs_flow.set()

    async def _restore(self) -> None:
        began = time.monotonic()
        owned: set[int] = set()
        for table in self.tables.values():
            partitions = {tp.partition for tp in self.actives_for_table[table]}
            owned |= partitions
            if isinstance(table, TransactionalTable):
                count = await table.restore(self.app.log_reader, partitions)
                level = logging.INFO if count else logging.DEBUG
                logger.log(level, "restored table=%s partitions=%d records=%d", table.name, len(partitions), count)
        if self.app.restore_state is not None:
            await self.app.restore_state(owned)
        if owned:
            logger.info("recovery done partitions=%d seconds=%.2f", len(owned), time.monotonic() - began)

    async def _resume_streams(self, generation_id: int = 0) -> None:
        """Recover an app without tables in the same order."""
        await self.on_recovery_completed(generation_id)


class BulkTableManager(TableManager):  # type: ignore[misc]
    """Faust's table manager with `BulkRecovery`, and without its second of sleep at the start."""

    async def on_start(self) -> None:
        """Register the tables' channels and start the recovery service."""
        if not self.should_stop:
            await self._update_channels()
            await self.recovery.start()

    @property
    def recovery(self) -> BulkRecovery:
        """The recovery service."""
        if self._recovery is None:
            self._recovery: Recovery | None = BulkRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return cast("BulkRecovery", self._recovery)
