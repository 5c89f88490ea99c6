"""How a deployment was at a time in the past, as far as its topics still tell.

Rules of this file:
- Of what flowed, some records from the middle of the time are read, and stand for all.
- Of totals and comparisons the newest before the time counts. Compaction has taken most of the totals.
- A manifest of then is the one before the first change since.
"""

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import aclosing, suppress
from operator import attrgetter

from aiokafka import TopicPartition

from clipper_agents.control.state import ControlState, Manifests
from clipper_agents.kafka.reader import LogReader, Range, Record
from clipper_agents.status.build import StatusBuilder
from clipper_agents.status.deployment_view import DeploymentView
from clipper_agents.status.traffic_window import TrafficWindow
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import UndecodableRecord

MOST_OF_A_TIME, MOST_LAST = 1_000, 20_000
"""Records that are read of a log and a time; and of totals and comparisons, in all."""
LIST_RECORDS = 50
"""Taken in at once: others that share the loop wait so long."""
Offsets = dict[TopicPartition, int]


class PastReader:
    """Reads how a deployment was.

    Args:
        reader: Reads committed records.
        catalogue: Names the topics.
        partitions: Those that can be read.
        facts: What is declared now, and how that came to be.
    """

    def __init__(
        self, reader: LogReader, catalogue: Catalogue, partitions: Iterable[TopicPartition], facts: DeploymentView
    ) -> None:
        self._reader, self._topics, self._facts = reader, catalogue, facts
        self._partitions = [*partitions]
        self._ends: Offsets = {}
        self._totals: dict[bytes, list[Record]] = {}
        self._comparisons: dict[bytes, list[Record]] = {}
        self._edges: dict[int, Offsets] = {}

    async def start(self) -> None:
        """Read what is needed for every time.

        Raises:
            KafkaError: Kafka does not answer.
            TimeoutError: nothing comes.
        """
        logs = {self._topics.predictions, self._topics.feedback}
        self._ends = await self._reader.end_offsets(tp for tp in self._partitions if tp.topic in logs)
        self._totals = await self._last(self._topics.selection)
        self._comparisons = await self._last(self._topics.comparisons)

    async def between(self, since_s: int, until_s: int) -> StatusBuilder:
        """What was declared and learned at the end of a time, and what flowed in it; errors as of `start`.

        The builder's window is one second, in which all of the time is.
        """
        facts, recent = self._facts_at(until_s), TrafficWindow()
        if facts.declared.manifests.applications:
            first, end = await self._offsets_at(since_s), await self._offsets_at(until_s)
            self._edges = {since_s: first}
            await self._read(recent, first, end, until_s)
        return StatusBuilder(facts=facts, recent=recent, now_s=until_s, window_s=1)

    async def _offsets_at(self, at_s: int) -> Offsets:
        if at_s not in self._edges:
            self._edges[at_s] = self._ends | await self._reader.offsets_at(self._ends, 1000 * at_s)
        return self._edges[at_s]

    async def _last(self, topic: str) -> dict[bytes, list[Record]]:
        """The newest records of a topic, by key, in log order."""
        there = await self._reader.ranges(tp for tp in self._partitions if tp.topic == topic)
        found: defaultdict[bytes, list[Record]] = defaultdict(list)
        wanted = {tp: Range(max(first, end - MOST_LAST), end) for tp, (first, end) in there.items()}
        async with aclosing(self._reader.lists(wanted)) as lists:
            async for _, records in lists:
                for record in records:
                    found[record.key or b""].append(record)
        return found

    async def _read(self, recent: TrafficWindow, first: Offsets, end: Offsets, until_s: int) -> None:
        most = MOST_OF_A_TIME * 2 // max(2, len(end))
        sizes = {tp: end[tp] - first[tp] for tp in end if end[tp] > first[tp]}
        starts = {tp: first[tp] + max(0, size - most) // 2 for tp, size in sizes.items()}
        ranges = {tp: Range(start, min(start + most, end[tp])) for tp, start in starts.items()}
        async with aclosing(self._reader.lists(ranges, LIST_RECORDS)) as lists:
            async for tp, records in lists:
                weight = sizes[tp] / (ranges[tp].end - ranges[tp].first)
                for record in records:
                    with suppress(UndecodableRecord):
                        self._take(recent, record, until_s, weight)
                await asyncio.sleep(0)

    def _take(self, recent: TrafficWindow, record: Record, until_s: int, weight: float) -> None:
        at_s = until_s - 1
        if record.topic == self._topics.predictions:
            prediction = codec.predictions.decode(record.value, record.headers)
            if prediction.predicted_at_ms:
                prediction.predicted_at_ms += 1000 * at_s - record.timestamp
            recent.predicted(prediction, at_s, until_s, weight)
        else:
            name = codec.feedback.decode(record.value, record.headers).application
            recent.fed_back(name or "", at_s, until_s, weight)

    def _facts_at(self, at_s: int) -> DeploymentView:
        at_ms, declared = 1000 * at_s, self._facts.declared
        manifests = Manifests(models=declared.manifests.models)
        for name in declared.changes.keys() | declared.manifests.applications.keys():
            manifest = declared.manifests.applications.get(name)
            for change in self._facts.changes_of(name):
                manifest = change.before if change.at_ms >= at_ms else manifest
            if manifest is not None:
                manifests.applications[name] = manifest
        found = DeploymentView(contexts_read=False, declared=ControlState(manifests=manifests, notes=()))
        if not manifests.applications:
            return found
        for record in _newest(self._totals, at_ms):
            found.totals(record.key, record.value)
        for record in _newest(self._comparisons, at_ms):
            found.comparison(record.key, record.value, record.headers, record.timestamp / 1000)
        return found


def _newest(by_key: Mapping[bytes, list[Record]], at_ms: int) -> Iterable[Record]:
    for records in by_key.values():
        if before := bisect_right(records, at_ms, key=attrgetter("timestamp")):
            yield records[before - 1]
