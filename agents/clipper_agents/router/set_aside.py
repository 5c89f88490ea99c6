"""Queries that are set aside: they are not acknowledged, and are read again from the log later.

A query is deferred when its application has no room. It is read again when there is room, in the order of the log; or
while there is still time to answer it. A backlog is skipped when queries are read too late: whoever answers an overload
in the order of the log serves only what is too late already.

Rules of this file:
- What is set aside is not acknowledged, so whoever has the partition next reads it too. Nothing behind a skipped
  backlog is committed.
- A backlog is skipped when most new queries of a chunk have waited for longer than they may still wait, and it would
  not be worked off within `CATCH_UP_S`: the age of what is read does not fall, or falls too slowly.
- A skipped backlog is read in the order of the log, some queries at a time, while few answers wait for the broker: in a
  tenth of the time while anything is too late, in a third of it afterwards, and in all of it while no new query comes.
"""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple, Protocol

from aiokafka import TopicPartition
from faust.types import TP

from clipper_agents.kafka.reader import LogReader, Range, Record
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.consumer import GroupConsumer
from clipper_stream.query import QueryBatch
from clipper_stream.query.in_flight import Admission

logger = logging.getLogger(__name__)

DEFERRED_TOGETHER = 2_000
"""Offsets of one partition that are looked through in one reading."""
SMALLEST = 1_000
"""Offsets; a smaller backlog is not worth the fetches that are thrown away with it."""
CATCH_UP_S = 1.0
READ_TOGETHER, READ_ALONE = 200, 1_000
"""Queries that are read together: some milliseconds of work, for which new queries wait; and while none comes."""
READINGS_UNWRITTEN = 4
"""Of one partition: while the broker takes the answers of some, the next ones are worked on."""
READ_BYTES = 2 << 20
"""Of a fetch of them."""
BUSY_RATIO, QUIET_RATIO = 20.0, 4.0
"""Times that the decisions about them take, about half of all their work, for which the reading rests: while queries
are too late, and otherwise."""
MOST_REST_S = 0.5
BUSY_S = 1.0
"""So long after the last query that was too late, and after the last one at all."""
LOOK_AGAIN_S = 0.02
SAY_EVERY_S = 10.0


class RecordSink(Protocol):
    """Takes queries that are read again as if they were read for the first time: a `QueryAgent`, which sets aside."""

    def receive(self, chunk: Mapping[TP, list[Record]], generation: int, /) -> object: ...
    def is_held(self, tp: TP, most: int, /) -> bool: ...


class DeferredLane:
    """Deferred queries of one application and partition: of each the offset, until when it may wait, a hash of its id.

    They may come in any order: a backlog that was skipped is read after what follows it.
    """

    def __init__(self) -> None:
        self.waiting: list[tuple[int, float, int]] = []
        """A heap."""
        self._due_s = math.inf

    def put(self, offset: int, until_s: float, id_hash: int) -> None:
        heappush(self.waiting, (offset, until_s, id_hash))
        self._due_s = min(self._due_s, until_s)

    def take(self, room: int, now_s: float) -> dict[int, int]:
        """Take the first offsets, as many as there is room for and as are read together; or of those that are due.

        Return by offset the hash of the id.
        """
        taken: dict[int, int] = {}
        if now_s >= self._due_s:
            due = {offset: id_hash for offset, until_s, id_hash in self.waiting if until_s <= now_s}
            end = min(due, default=0) + DEFERRED_TOGETHER
            taken = {offset: id_hash for offset, id_hash in due.items() if offset < end}
            self.waiting = [query for query in self.waiting if query[0] not in taken]
            heapify(self.waiting)
            self._due_s = min((until_s for _, until_s, _ in self.waiting), default=math.inf)
        elif room > 0:
            end = self.waiting[0][0] + DEFERRED_TOGETHER
            while self.waiting and self.waiting[0][0] < end and len(taken) < room:
                offset, _, id_hash = heappop(self.waiting)
                taken[offset] = id_hash
        return taken


class DeferredQueries:
    """Has queries read again for which there was no room."""

    def __init__(self, app: ClipperApp, reader: LogReader, topic: str, admission: Admission) -> None:
        self._app, self._reader, self._topic, self._admission = app, reader, topic, admission
        self._lanes: dict[tuple[str, int], DeferredLane] = {}
        self._ids = Counter[tuple[int, int]]()
        """By partition and hash of the id, how many wait."""
        self._work = asyncio.Event()

    def put(self, queries: Sequence[tuple[QueryBatch, int, float]]) -> None:
        """Defer queries, given by batch and index, each until a time in seconds since the epoch."""
        for batch, query, until_s in queries:
            id_hash = hash(batch.ids[query])
            self._ids[batch.partition, id_hash] += 1
            lane = self._lanes.setdefault((batch.application, batch.partition), DeferredLane())
            lane.put(batch.offsets[query], until_s, id_hash)
        if queries:
            self._admission.deferred += len(queries)
            self._work.set()

    def has_id(self, partition: int, query_id: str) -> bool:
        return (partition, hash(query_id)) in self._ids

    def clear(self) -> None:
        """Forget all: their partitions were taken away."""
        self._lanes.clear()
        self._ids.clear()
        self._admission.deferred = 0

    async def run(self, sink: RecordSink) -> None:
        while True:
            await self._work.wait()
            if not self._lanes:
                self._work.clear()
            elif not await self._read_some(sink):
                await asyncio.sleep(LOOK_AGAIN_S)

    async def close(self) -> None:
        await self._reader.close()

    async def _read_some(self, sink: RecordSink) -> bool:
        generation, has_read = self._app.generation, False
        for (application, partition), lane in [*self._lanes.items()] if generation >= 0 else []:
            taken = lane.take(self._admission.room(application), time.time())
            self._admission.deferred -= len(taken)
            if not lane.waiting:
                del self._lanes[application, partition]
            if not taken:
                continue
            has_read = True
            records = await self._records(partition, taken)
            if self._app.generation != generation:
                return True
            tp = TP(self._topic, partition)
            sink.receive({tp: records}, generation)
            self._ids -= Counter((partition, id_hash) for id_hash in taken.values())
            gone = taken.keys() - {record.offset for record in records}
            if gone:
                logger.warning("deferred queries are in the log no more partition=%d count=%d", partition, len(gone))
                self._app.consumer.acknowledge(tp, sorted(gone), generation)
        return has_read

    async def _records(self, partition: int, offsets: Collection[int]) -> list[Record]:
        tp, records = TopicPartition(self._topic, partition), list[Record]()
        await self._reader.read(
            {tp: min(offsets)},
            lambda _, some: records.extend(record for record in some if record.offset in offsets),
            {tp: max(offsets) + 1},
        )
        return records


class LagSample(NamedTuple):
    """What is read of a partition is too late: when it was looked at, and how old it was, in seconds."""

    at_s: float
    age_s: float

    def catches_up(self, earlier: "LagSample") -> bool:
        """Whether the age falls so fast that it is gone soon."""
        fallen_s = earlier.age_s - self.age_s
        return fallen_s > 0 and self.age_s * (self.at_s - earlier.at_s) <= CATCH_UP_S * fallen_s


class SkippedBacklogs:
    """Skips backlogs, and has them read later, while there is room."""

    def __init__(self, app: ClipperApp, reader: LogReader, room: asyncio.Event) -> None:
        self._app, self._reader, self._room = app, reader, room
        self._late: dict[TP, LagSample] = {}
        self._partitions: set[TP] = set()
        """Those of which something is skipped."""
        self._new_s = self._late_s = self._said_s = -math.inf
        self._work = asyncio.Event()

    @property
    def skipped(self) -> int:
        return sum(self._consumer.trackers[tp].skipped_offsets for tp in self._partitions)

    def skip_if_behind(self, chunk: Mapping[TP, Sequence[Record]], late: Collection[int]) -> None:
        """Skip the backlogs of partitions whose queries are read too late, and will be.

        Of the partitions in `late`, most new queries of the chunk had waited for longer than they may still wait.
        """
        self._new_s = now_s = _now_s()
        if not late and not self._late:
            return
        for tp, records in chunk.items():
            if tp.partition not in late:
                self._late.pop(tp, None)
                continue
            self._late_s = now_s
            sample = LagSample(now_s, time.time() - records[-1].timestamp / 1000)
            earlier, self._late[tp] = self._late.get(tp), sample
            if earlier is not None and not sample.catches_up(earlier):
                self._skip(tp)

    def clear(self) -> None:
        """Forget all: reading begins anew with what is not acknowledged."""
        self._partitions.clear()
        self._late.clear()

    async def run(self, sink: RecordSink) -> None:
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
                await self._room.wait()
                await asyncio.sleep(await self._read_some(sink, generation))

    async def close(self) -> None:
        await self._reader.close()

    @property
    def _consumer(self) -> GroupConsumer:
        return self._app.consumer

    def _skip(self, tp: TP) -> None:
        if not self._consumer.skip_backlog(tp, SMALLEST):
            return
        del self._late[tp]
        self._partitions.add(tp)
        self._work.set()
        if self._late_s - self._said_s >= SAY_EVERY_S:
            self._said_s = self._late_s
            logger.warning("queries are read too late: the newest come first, left for later count=%d", self.skipped)

    def _ranges(self) -> dict[TopicPartition, Range]:
        ranges: dict[TopicPartition, Range] = {}
        for tp in [*self._partitions] if self._app.generation >= 0 else []:
            if (left := self._consumer.trackers[tp].skipped_range) is not None:
                ranges[TopicPartition(*tp)] = Range(*left)
            else:
                self._partitions.remove(tp)
        return ranges

    async def _read_some(self, sink: RecordSink, generation: int) -> float:
        most = READ_TOGETHER if _now_s() - self._new_s < BUSY_S else READ_ALONE
        wanted = [tp for tp in self._reader.unread if not sink.is_held(TP(*tp), READINGS_UNWRITTEN * most)]
        fetched = await self._reader.fetch(wanted, most, LOOK_AGAIN_S) if wanted else {}
        if self._app.generation != generation:
            return 0.0
        began_s = time.monotonic()
        for partition in wanted:
            tp, records = TP(*partition), fetched.get(partition, [])
            offsets = [record.offset for record in records]
            self._consumer.trackers[tp].admit_skipped(offsets, self._reader.positions[partition])
            if records:
                sink.receive({tp: records}, generation)
        if not fetched:
            return LOOK_AGAIN_S
        if _now_s() - self._new_s >= BUSY_S:
            return 0.0
        ratio = BUSY_RATIO if _now_s() - self._late_s < BUSY_S else QUIET_RATIO
        return min(MOST_REST_S, ratio * (time.monotonic() - began_s))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
