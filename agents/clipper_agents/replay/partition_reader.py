"""Reads one partition of the logs to the end of a span, and hands out its decisions as they are finished.

Rules of this file:
- Read is what is oldest, so that feedback comes when its prediction is known and a chunk is finished soon.
- Records that a transaction took back are not read.
- A broker that stays away is an error: whoever reads a log reads it again.
"""

import math
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable
from operator import attrgetter

from aiokafka import TopicPartition

from clipper_agents.kafka.reader import LogReader
from clipper_agents.replay.partition_join import PartitionJoin
from clipper_agents.replay.span import PartitionSpan
from clipper_agents.replay.wire import Record
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_topics.catalogue import Catalogue

AT_ONCE = 8_192
"""Records that are taken in before it is looked what is oldest."""
_at_ms = attrgetter("timestamp")

Progress = Callable[[int], None]
"""Called with the number of records read since the last call."""


class _Cursor:
    """The reading position of one topic.

    Attributes:
        at_ms: Timestamp of the next record, or of the last one when it is not known; infinite at the end.
        fetched: Records that wait.
    """

    def __init__(self, reader: LogReader, tp: TopicPartition, take: Callable[[list[Record]], None]) -> None:
        self._reader, self._tp, self._take = reader, tp, take
        self.at_ms: float = -1.0
        self.fetched: list[Record] = []
        self._look_ahead()

    def take(self, upto_ms: float) -> int:
        """Hand over records up to a time, at least one if it is this topic's turn, and return their number."""
        count = bisect_right(self.fetched, upto_ms, key=_at_ms) if upto_ms < math.inf else len(self.fetched)
        if self.fetched and self.at_ms <= upto_ms:
            count = max(1, count)  # where clocks went back, nothing may be found though there is something
        if count:
            self._take(self.fetched[:count])
            self.at_ms = max(self.at_ms, self.fetched[count - 1].timestamp)
            self.fetched = self.fetched[count:]
        self._look_ahead()
        return count

    async def fetch(self) -> None:
        """Wait for the next records, or for the end of the range."""
        while not self.fetched and self._tp in self._reader.unread:
            self.fetched = (await self._reader.fetch([self._tp], AT_ONCE)).get(self._tp, [])
        self._look_ahead()

    def _look_ahead(self) -> None:
        if self.fetched:
            self.at_ms = max(self.at_ms, self.fetched[0].timestamp)
        elif self._tp not in self._reader.unread:
            self.at_ms = math.inf


async def read_partition(
    reader: LogReader,
    catalogue: Catalogue,
    span: PartitionSpan,
    join: PartitionJoin,
    progress: Progress = lambda _: None,
) -> AsyncIterator[DecisionColumns]:
    """Read the decisions of one partition, in log order.

    Args:
        reader: A connected reader that reads nothing else meanwhile.
        catalogue: Topics of the deployment.
        span: Offsets to read.
        join: A new join of this partition.
        progress: Called with the number of records read since the last call.

    Raises:
        KafkaError: the broker refuses.
        TimeoutError: no record came within the reader's patience.
    """
    predictions, *others = cursors = _begin(reader, catalogue, span, join)
    while live := [cursor for cursor in cursors if cursor.at_ms < math.inf]:
        oldest = min(live, key=lambda cursor: cursor.at_ms)
        await oldest.fetch()
        progress(oldest.take(math.inf if oldest is predictions else predictions.at_ms))
        for columns in join.finished(min(cursor.at_ms for cursor in others)):
            yield columns
    for columns in join.end():
        yield columns


def _begin(reader: LogReader, catalogue: Catalogue, span: PartitionSpan, join: PartitionJoin) -> list[_Cursor]:
    topics = (
        (TopicPartition(catalogue.predictions, span.partition), span.predictions, join.predictions),
        (TopicPartition(catalogue.audits, span.partition), span.audits, join.audits),
        (TopicPartition(catalogue.feedback, span.partition), span.feedback, join.feedback),
    )
    reader.assign({tp: offsets for tp, offsets, _ in topics})
    return [_Cursor(reader, tp, take) for tp, _, take in topics]
