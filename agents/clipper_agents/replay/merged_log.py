"""A range of several topics, read as one log: by time, then topic, partition and offset, in bounded memory."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from aiokafka import TopicPartition

from clipper_agents.kafka.reader import LogReader, Range, open_reader
from clipper_agents.kafka.retry import WORKERS
from clipper_agents.kafka.time_order import Record, TimeOrder
from clipper_topics.connection import KafkaConnection

FETCH_BYTES = 1 << 20
MOST_WAITING = 1_000
"""Records of a partition that wait for those of the others, before a fetch; each fetch brings a MiB at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRange:
    """A range of time, in milliseconds since the epoch.

    Attributes:
        since_ms: Records of this time and later.
        until_ms: Records before it; None: up to where the partitions end now.
    """

    since_ms: int
    until_ms: int | None = None


class MergedLog:
    """The records of several ranges in one order of time; the ranges are fixed before the first record is read.

    Args:
        reader: A connected reader that reads nothing else meanwhile.
        ranges: What to read. Records of equal time come in the order of the topics here.
    """

    def __init__(self, reader: LogReader, ranges: Mapping[TopicPartition, Range]) -> None:
        self._reader = reader
        self._ranges = {tp: one for tp, one in ranges.items() if one.first < one.end}
        topics = list(dict.fromkeys(tp.topic for tp in ranges))
        self._order = TimeOrder({tp: topics.index(tp.topic) for tp in self._ranges})

    @property
    def offsets(self) -> int:
        """Number of offsets in the ranges; compacted offsets and transaction markers have no record."""
        return sum(one.end - one.first for one in self._ranges.values())

    async def records(self) -> AsyncGenerator[tuple[int, Record], None]:
        """Read each record with its time in milliseconds, which never decreases within a partition.

        Raises:
            KafkaError: an error that does not pass, for example a missing right.
        """
        self._reader.assign(self._ranges)
        while unread := self._reader.unread:
            wanted = [tp for tp in unread if self._order.waiting(tp) < MOST_WAITING]
            for tp, records in (await self._reader.fetch(wanted)).items():
                self._order.add(tp, records)
            for found in self._order.release(self._ranges.keys() - unread, float("inf")):
                yield found


def log_reader(connection: KafkaConnection) -> AbstractAsyncContextManager[LogReader]:
    """Open a reader for `MergedLog` and `ranges_of` that waits for an outage to end.

    Raises:
        KafkaUnreachable: no broker answers.
        AccessRefused: a right is missing.
    """
    return open_reader(connection, isolation_level="read_committed", policy=WORKERS, fetch_bytes=FETCH_BYTES)


async def ranges_of(
    reader: LogReader, partitions: Sequence[TopicPartition], times: TimeRange
) -> dict[TopicPartition, Range]:
    """Return the offsets of a range of time, by the records' timestamps.

    Raises:
        KafkaError: a right is missing.
    """
    ends = await reader.end_offsets(partitions)
    firsts = await reader.offsets_at(partitions, times.since_ms)
    lasts = {} if times.until_ms is None else await reader.offsets_at(partitions, times.until_ms)
    return {tp: Range(firsts.get(tp, ends[tp]), min(ends[tp], lasts.get(tp, ends[tp]))) for tp in partitions}


async def within_log(reader: LogReader, wanted: Mapping[TopicPartition, Range]) -> dict[TopicPartition, Range]:
    """Return the part of the wanted ranges that the partitions have.

    Raises:
        KafkaError: a right is missing.
    """
    there = await reader.ranges(wanted)
    return {tp: Range(max(there[tp].first, one.first), min(there[tp].end, one.end)) for tp, one in wanted.items()}
