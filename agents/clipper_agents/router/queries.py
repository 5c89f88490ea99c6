"""The Faust agent `route`: decodes queries and takes them into the pipeline; others go to the dead letters."""

import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import groupby
from typing import Any

from faust.types import TP

from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.indexed_log import QueryLogs
from clipper_agents.router.pipeline import QueryPipeline
from clipper_agents.router.query_consumer import QueryConsumer
from clipper_agents.router.query_decoding import Record, decode_queries, decoded_together
from clipper_agents.router.query_traces import UNTRACED, QueryTraces
from clipper_agents.router.set_aside import SkippedBacklogs
from clipper_agents.streaming.dead_letters import DeadLetterSender, Refused
from clipper_agents.streaming.stream import by_partition
from clipper_stream.query import QueryBatch

QUERIES_A_CHUNK = 1000
BYTES_A_CHUNK = 1 << 20
"""So that one client's large records, and not more than one of the largest, keep others waiting for a turn."""
MOST_UNWRITTEN = 2_000
"""Records of one partition that wait for the broker, at which it is read no further: some tens of rounds."""


class QueryAgent:
    """Reads queries."""

    def __init__(
        self,
        consumer: QueryConsumer,
        pipeline: QueryPipeline,
        logs: QueryLogs,
        dead_letters: DeadLetterSender,
        metrics: RouterMetrics,
        backlogs: SkippedBacklogs,
        traces: QueryTraces = UNTRACED,
    ) -> None:
        self._consumer, self._pipeline, self._logs = consumer, pipeline, logs
        self._dead_letters, self._metrics, self._backlogs, self._traces = dead_letters, metrics, backlogs, traces
        self._received: dict[TP, int] = {}
        """One past the last offset that was received in a generation."""
        self._received_in = -1

    async def serve(self, stream: Any) -> None:
        async for lists in stream.chunks(QUERIES_A_CHUNK, self.is_held, BYTES_A_CHUNK):
            generation = stream.generation
            await self._consumer.wait_for_room()
            chunk = by_partition(lists)
            self._backlogs.skip_if_behind(chunk, self.receive(chunk, generation))

    def receive(self, chunk: Mapping[TP, list[Record]], generation: int) -> set[int]:
        """Take queries into the pipeline, and refuse unreadable records.

        Return the partitions of which most new queries had waited for longer than they may still wait. The records of a
        generation that has ended are left alone: whoever has their partition now reads them again.
        """
        if generation != self._consumer.generation:
            return set()
        if generation != self._received_in:
            self._received, self._received_in = {}, generation
        undecodable: Refused = []
        now_s = time.time()
        repeated, behind = self._pipeline.receive(self._decoded(chunk, generation, now_s, undecodable), now_s)
        for partition, group in groupby(undecodable, key=lambda refused: refused[0].partition):
            self._refuse(partition, [*group], generation)
        for tp, records in chunk.items():
            if records:
                self._received[tp] = max(records[-1].offset + 1, self._received.get(tp, 0))
        new = {tp.partition: len(records) - repeated[tp.partition] for tp, records in chunk.items()}
        return {partition for partition, count in behind.items() if 2 * count > new[partition]}

    def may_decide(self, tp: TP, query_id: str, end: int) -> bool:
        """Return whether a query with this id that stands in a partition before an end may still be decided about."""
        consumer = self._consumer
        received = self._received.get(tp, 0) if self._received_in == consumer.generation else 0
        return not consumer.has_taken(tp, received, end) or self._pipeline.has_id(tp.partition, query_id)

    def is_held(self, tp: TP, most: int = MOST_UNWRITTEN) -> bool:
        """Return whether a partition has to wait until the broker has taken more of it: it has so many that wait."""
        return self._logs.unwritten(tp.partition) >= most or self._dead_letters.is_full(tp)

    def _decoded(
        self, chunk: Mapping[TP, list[Record]], generation: int, now_s: float, undecodable: Refused
    ) -> Iterator[QueryBatch]:
        """Decode a few records at a time, so that few are objects at once; `undecodable` takes the others."""
        for records in chunk.values():
            for some in decoded_together(records):
                batches, refused = decode_queries(some, generation, now_s, self._traces)
                undecodable += refused
                yield from batches

    def _refuse(self, partition: int, undecodable: Refused, generation: int) -> None:
        """Have records that hold no query stored as dead letters, and then acknowledge them."""
        offsets = [record.offset for record, _ in undecodable]
        self._metrics.count_dead_letters(undecodable[0][0].topic, "undecodable", len(offsets))
        self._dead_letters.put(undecodable, partial(self._consumer.acknowledge, partition, offsets, generation))
