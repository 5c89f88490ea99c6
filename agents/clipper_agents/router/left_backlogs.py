"""Backlogs that were left for later: where queries are read too late, the newest ones come first.

Whoever answers an overload in the order of the log serves only what is too late already. So reading goes on at the end
of the log, and what was left is read when there is time.

Rules of this file:
- A backlog is left when most new queries of a chunk have waited for longer than they may still wait, and it would not
  be worked off within `CATCH_UP_S`: the age of what is read does not fall, or falls too slowly.
- What was left is not acknowledged, so whoever has the partition next reads it too. Nothing behind it is committed.
- It is read in the order of the log, some queries at a time, the next ones when the broker has the answers: in a tenth
  of the time while anything is too late, in a third of it afterwards, and in all of it while no new query comes.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol, cast

from aiokafka import TopicPartition
from faust.types import TP

from clipper_agents.kafka.reader import LogReader, Range, Record
from clipper_agents.router.query_consumer import BoundedQueryConsumer
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.consumer import BulkConsumer

logger = logging.getLogger(__name__)

SMALLEST = 1_000
"""Offsets; a smaller backlog is not worth the fetches that are thrown away with it."""
CATCH_UP_S = 1.0
READ_TOGETHER, READ_ALONE = 200, 1_000
"""Queries that are read together: some milliseconds of work, for which new queries wait; and while none comes."""
READ_BYTES = 512 << 10
"""Of a fetch of them."""
BUSY_RATIO, QUIET_RATIO = 20.0, 4.0
"""Times that the decisions about them take, about half of all their work, for which the reading rests: while queries
are too late, and otherwise."""
MOST_REST_S = 0.5
BUSY_S = 1.0
"""So long after the last query that was too late, and after the last one at all."""
LOOK_AGAIN_S = 0.02
SAY_EVERY_S = 10.0


class LateReader(Protocol):
    """Takes records that are read late: a `QueryAgent`."""

    def receive(self, chunk: Mapping[TP, list[Record]], generation: int, /) -> object:
        """Take records of queries."""
        ...

    def is_held(self, tp: TP, most: int, /) -> bool:
        """Return whether a partition has so many records that the broker has not taken, or more."""
        ...


class LatePart(NamedTuple):
    """What is read of a partition is too late: when it was looked at, and how old it was, in seconds."""

    at_s: float
    age_s: float

    def catches_up(self, earlier: "LatePart") -> bool:
        """Whether the age falls so fast that it is gone soon."""
        fallen_s = earlier.age_s - self.age_s
        return fallen_s > 0 and self.age_s * (self.at_s - earlier.at_s) <= CATCH_UP_S * fallen_s


class LeftBacklogs:
    """Leaves backlogs for later, and has them read.

    Args:
        app: Consumes.
        reader: Reads what was left, `READ_BYTES` at a time.
        queries: Knows whether there is room for more.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        app: ClipperApp,
        reader: LogReader,
        queries: BoundedQueryConsumer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._reader, self._queries = app, reader, queries
        self._clock = clock
        self._late: dict[TP, LatePart] = {}
        self._partitions: set[TP] = set()
        """Those of which something is left."""
        self._new_s = self._late_s = self._said_s = -math.inf
        self._work = asyncio.Event()

    @property
    def left(self) -> int:
        """How many offsets are left."""
        return sum(self._consumer.trackers[tp].skipped_offsets for tp in self._partitions)

    def look(self, chunk: Mapping[TP, Sequence[Record]], late: Collection[int]) -> None:
        """Leave the backlogs of partitions whose queries are read too late, and will be.

        Args:
            chunk: Queries that were read, by partition.
            late: Partitions of which most new ones had waited for longer than they may still wait.
        """
        self._new_s = now_s = self._clock()
        if not late and not self._late:
            return
        for tp, records in chunk.items():
            if tp.partition not in late:
                self._late.pop(tp, None)
                continue
            self._late_s = now_s
            part = LatePart(now_s, time.time() - records[-1].timestamp / 1000)
            earlier, self._late[tp] = self._late.get(tp), part
            if earlier is not None and not part.catches_up(earlier):
                self._leave(tp)

    def clear(self) -> None:
        """Forget all: reading begins anew with what is not acknowledged."""
        self._partitions.clear()
        self._late.clear()

    async def run(self, agent: LateReader) -> None:
        """Have what was left read by the agent, until cancelled."""
        while True:
            await self._work.wait()
            generation, ranges = self._app.generation, self._ranges()
            if not self._partitions:
                self._work.clear()
            if generation < 0 or not ranges:
                await asyncio.sleep(LOOK_AGAIN_S)
                continue
            await self._reader.start()
            self._reader.assign(ranges)
            while self._reader.unread and self._app.generation == generation:
                await self._queries.wait_for_room()
                await asyncio.sleep(await self._read_some(agent, generation))

    async def close(self) -> None:
        """Disconnect."""
        await self._reader.close()

    @property
    def _consumer(self) -> BulkConsumer:
        return cast("BulkConsumer", self._app.consumer)

    def _leave(self, tp: TP) -> None:
        if not self._consumer.skip_backlog(tp, SMALLEST):
            return
        del self._late[tp]
        self._partitions.add(tp)
        self._work.set()
        if self._late_s - self._said_s >= SAY_EVERY_S:
            self._said_s = self._late_s
            logger.warning("queries are read too late: the newest come first, left for later count=%d", self.left)

    def _ranges(self) -> dict[TopicPartition, Range]:
        """The first offsets that are left of each partition; partitions without any are dropped."""
        found: dict[TopicPartition, Range] = {}
        for tp in [*self._partitions] if self._app.generation >= 0 else []:
            if (left := self._consumer.trackers[tp].skipped_range) is not None:
                found[TopicPartition(*tp)] = Range(*left)
            else:
                self._partitions.remove(tp)
        return found

    async def _read_some(self, agent: LateReader, generation: int) -> float:
        """Have some queries read; return for how long to rest afterwards, in seconds."""
        most = READ_TOGETHER if self._clock() - self._new_s < BUSY_S else READ_ALONE
        wanted = [tp for tp in self._reader.unread if not agent.is_held(TP(*tp), most)]
        found = await self._reader.fetch(wanted, most, LOOK_AGAIN_S) if wanted else {}
        if self._app.generation != generation:
            return 0.0
        began_s = self._clock()
        for partition in wanted:
            tp, records = TP(*partition), found.get(partition, [])
            offsets = [one.offset for one in records]
            self._consumer.trackers[tp].admit_skipped(offsets, self._reader.positions[partition])
            if records:
                agent.receive({tp: records}, generation)
        if not found:
            return LOOK_AGAIN_S
        now_s = self._clock()
        if now_s - self._new_s >= BUSY_S:
            return 0.0
        ratio = BUSY_RATIO if now_s - self._late_s < BUSY_S else QUIET_RATIO
        return min(MOST_REST_S, ratio * (now_s - began_s))
