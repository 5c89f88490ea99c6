"""Backlogs that were left for later: where queries are read too late, the newest ones come first.

Whoever answers an overload in the order of the log serves only what is too late already. So reading goes on at the end
of the log, and what was left is read when there is time.

Rules of this file:
- Most queries of a chunk have waited for longer than they may still wait, and there is more behind them: that is too
  late. One chunk, or a partition without a backlog, leaves nothing.
- What was left is not acknowledged, so whoever has the partition next reads it too. Nothing behind it is committed.
- It is read in the order of the log, some queries at a time: in a tenth of the time while anything is too late, in half
  of it afterwards.
"""

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from aiokafka import TopicPartition
from faust.types import TP

from clipper_agents.kafka.reader import LogReader, Record
from clipper_agents.router.decision_index import LogIndex
from clipper_agents.router.query_consumer import BoundedQueryConsumer
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.consumer import BulkConsumer

logger = logging.getLogger(__name__)

READ_TOGETHER = 200
"""Offsets that are read together: some milliseconds of work, for which new queries wait."""
BUSY_RATIO, QUIET_RATIO = 9.0, 1.0
"""Times that such work takes, for which it rests: while queries are too late, and otherwise."""
BUSY_S = 1.0
"""So long after the last that was too late."""
LOOK_AGAIN_S = 0.02
SAY_EVERY_S = 10.0


class LateReader(Protocol):
    """Takes records that are read late: a `QueryAgent`."""

    def receive(self, chunk: Mapping[TP, list[Record]], generation: int, /) -> object:
        """Take records of queries."""
        ...

    def is_held(self, tp: TP, /) -> bool:
        """Return whether a partition has to wait for the broker."""
        ...


class LeftBacklogs:
    """Leaves backlogs for later, and has them read.

    Args:
        app: Consumes.
        reader: Reads what was left.
        queries: Knows whether there is room for more.
        decisions: Index that keeps the decisions which queries that were left may repeat.
    """

    def __init__(self, app: ClipperApp, reader: LogReader, queries: BoundedQueryConsumer, decisions: LogIndex) -> None:
        self._app, self._reader, self._queries, self._decisions = app, reader, queries, decisions
        self._partitions: dict[TP, None] = {}
        """Those of which something is left."""
        self._late_s = self._said_s = -math.inf
        self._work = asyncio.Event()

    @property
    def left(self) -> int:
        """How many offsets are left."""
        return sum(self._consumer.frontiers[tp].left_offsets for tp in self._partitions)

    def look(self, chunk: Mapping[TP, Sequence[Record]], behind: Mapping[int, int]) -> None:
        """Leave the backlogs of partitions whose queries are read too late.

        Args:
            chunk: Queries that were read, by partition.
            behind: How many of them had waited for longer than they may still wait, by partition.
        """
        for tp, records in chunk.items():
            if 2 * behind.get(tp.partition, 0) > len(records) and self._consumer.leave_backlog(tp, len(records)):
                self._late_s = time.monotonic()
                self._partitions[tp] = None
                self._keep_decisions(tp, records[-1].timestamp)
                self._work.set()
        if self._late_s - self._said_s >= SAY_EVERY_S:
            self._said_s = self._late_s
            logger.warning("queries are read too late: the newest come first, left for later count=%d", self.left)

    def clear(self, owned: set[int]) -> None:
        """Forget all: reading begins anew with what is not acknowledged.

        Args:
            owned: Partitions that this process owns now.
        """
        for partition in owned & {tp.partition for tp in self._partitions}:
            self._decisions.of(partition).left_ms = math.inf
        self._partitions.clear()

    async def run(self, agent: LateReader) -> None:
        """Have what was left read by the agent, until cancelled."""
        while True:
            await self._work.wait()
            if not self._partitions:
                self._work.clear()
            for tp in [*self._partitions]:
                await self._queries.wait_for_room()
                began_s = time.monotonic()
                is_read = await self._read_some(tp, agent)
                now_s = time.monotonic()
                ratio = BUSY_RATIO if now_s - self._late_s < BUSY_S else QUIET_RATIO
                await asyncio.sleep(ratio * (now_s - began_s) if is_read else LOOK_AGAIN_S)

    async def close(self) -> None:
        """Disconnect."""
        await self._reader.close()

    @property
    def _consumer(self) -> BulkConsumer:
        return cast("BulkConsumer", self._app.consumer)

    async def _read_some(self, tp: TP, agent: LateReader) -> bool:
        """Read some of what was left of a partition; return False if it has to wait."""
        generation, left = self._app.generation, self._consumer.frontiers[tp].left
        if left is None and generation >= 0:
            self._partitions.pop(tp, None)
            self._decisions.of(tp.partition).left_ms = math.inf
            return True
        if left is None or agent.is_held(tp):
            return False
        first, end = left[0], min(left[1], left[0] + READ_TOGETHER)
        records: list[Record] = []
        partition = TopicPartition(*tp)
        await self._reader.read({partition: first}, lambda _, found: records.extend(found), {partition: end})
        if self._app.generation != generation:
            return False
        self._consumer.frontiers[tp].admit_left([record.offset for record in records], end)
        if records:
            self._keep_decisions(tp, records[-1].timestamp)
            agent.receive({tp: records}, generation)
        return True

    def _keep_decisions(self, tp: TP, queried_ms: int) -> None:
        self._decisions.of(tp.partition).left_ms = queried_ms
