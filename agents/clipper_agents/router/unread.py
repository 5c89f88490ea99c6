"""Since when a router needs to know what was decided: that is told by the first query and feedback still to be read."""

from collections.abc import Mapping

from aiokafka import ConsumerRecord, TopicPartition

from clipper_agents.kafka.reader import LogReader

LOOK_AHEAD = 1_000
"""Offsets without a record that may follow a position: the ends of transactions, and what was taken back."""


async def first_unread_ms(
    reader: LogReader, positions: Mapping[TopicPartition, int], predictions: str
) -> dict[int, int]:
    """Return the timestamp of the first unread record by partition, in milliseconds since the epoch.

    Where nothing is unread it is that of the last prediction, 0 without any: what comes later is younger.

    Args:
        reader: Reads the first records.
        positions: Next offset to read, of the partitions of one or several topics.
        predictions: Name of the predictions topic.
    """
    partitions = {tp.partition for tp in positions}
    logged = [TopicPartition(predictions, one) for one in partitions]
    ends = await reader.end_offsets([*positions, *logged])
    starts: dict[TopicPartition, int | None] = {tp: first for tp, first in positions.items() if first < ends[tp]}
    behind = {tp.partition for tp in starts}
    starts |= {tp: ends[tp] - 1 for tp in logged if tp.partition not in behind and ends[tp]}
    found: dict[int, int] = {}

    def note(tp: TopicPartition, records: list[ConsumerRecord]) -> None:
        if tp not in noted:
            noted.add(tp)
            found[tp.partition] = min(records[0].timestamp, found.get(tp.partition, records[0].timestamp))

    noted: set[TopicPartition] = set()
    await reader.read(starts, note, {tp: min(ends[tp], (first or 0) + LOOK_AHEAD) for tp, first in starts.items()})
    return {partition: found.get(partition, 0) for partition in partitions}
