"""Which part of the logs: from a time or an offset to another, and the offsets that this comes to in each topic.

Rules of this file:
- A decision belongs to a span by the record of its prediction. What is about it may stand outside.
- A prediction before the span is read for its id alone, for a while back: one inside may repeat it.
- Feedback is read from a while before the span, and until the horizon behind its end, or to the end of the log.
"""

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from clipper_agents.kafka.reader import NO_END, LogReader, Range
from clipper_stream.errors import SetupError
from clipper_topics.catalogue import Catalogue

LEAD_MS = 300_000
"""Before the span: a router that starts again answers what it finds unfinished within minutes."""


class EmptySpan(SetupError):
    """The span ends before it begins, or names a partition that does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of the predictions topic.

    Attributes:
        since_ms: Predictions of this time and later, milliseconds since the epoch; None: from the oldest on.
        until_ms: Predictions before this time; None: up to the end of the log now.
        offsets: By partition, the first offset and one past the last, None for the oldest or the end; partitions that
            are not named are not read. Instead of times.
        horizon_s: How long after its prediction a feedback still counts, in seconds; None: as long as there is a log.

    >>> Span(since_ms=1_000, until_ms=2_000).horizon_ms
    inf

    Raises:
        EmptySpan: the span ends before it begins, or has both times and offsets.
    """

    since_ms: int | None = None
    until_ms: int | None = None
    offsets: Mapping[int, tuple[int | None, int | None]] = field(default_factory=dict)
    horizon_s: float | None = None

    def __post_init__(self) -> None:
        if self.offsets and (self.since_ms is not None or self.until_ms is not None):
            raise EmptySpan("the span has times and offsets: give one of them")
        if self.since_ms is not None and self.until_ms is not None and self.since_ms >= self.until_ms:
            raise EmptySpan(f"the span begins at {self.since_ms} ms and ends at {self.until_ms} ms: give a later end")
        for partition, (first, end) in self.offsets.items():
            if first is not None and end is not None and first >= end:
                raise EmptySpan(f"partition {partition} from offset {first} to {end}: give a later end")

    @property
    def horizon_ms(self) -> float:
        """The horizon in milliseconds."""
        return float("inf") if self.horizon_s is None else self.horizon_s * 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionSpan:
    """Ranges of offsets to read in one partition of each topic.

    Attributes:
        partition: Number of the partition.
        first: Offset of the first wanted prediction.
        predictions: Predictions to read; those before `first` only for their ids.
        audits: Audits to read.
        feedback: Feedback to read.
    """

    partition: int
    first: int
    predictions: Range
    audits: Range
    feedback: Range

    @property
    def records(self) -> int:
        """Number of offsets to read."""
        return sum(end - begin for begin, end in (self.predictions, self.audits, self.feedback))


async def partition_spans(reader: LogReader, catalogue: Catalogue, span: Span) -> list[PartitionSpan]:
    """Return the offsets of each partition with predictions in the span.

    Args:
        reader: A connected reader that reads nothing else meanwhile.
        catalogue: Topics of the deployment.
        span: The part to read.

    Raises:
        EmptySpan: the span names a partition that does not exist.
        KafkaError: no broker answers, or a right is missing.
        TimeoutError: no record came within the reader's patience.
    """
    foreign = [number for number in span.offsets if not 0 <= number < catalogue.partitions]
    if foreign:
        raise EmptySpan(f"partition {foreign[0]} is not there: {catalogue.predictions} has {catalogue.partitions}")
    numbers = sorted(span.offsets) or list(range(catalogue.partitions))
    found = [await _partition_span(reader, catalogue, span, number) for number in numbers]
    return [one for one in found if one.first < one.predictions.end]


async def _partition_span(reader: LogReader, catalogue: Catalogue, span: Span, number: int) -> PartitionSpan:
    predictions, audits, feedback = tps = [
        TopicPartition(topic, number) for topic in (catalogue.predictions, catalogue.audits, catalogue.feedback)
    ]
    there = await reader.ranges(tps)
    low, high = there[predictions]
    first, end = await _wanted(reader, predictions, span, there[predictions])
    since_ms, until_ms = span.since_ms, span.until_ms
    if span.offsets and first < end:
        since_ms = await _time_at(reader, predictions, first) if first > low else None
        until_ms = await _time_at(reader, predictions, end - 1) if end < high else None
    lead_ms = None if since_ms is None else max(0, since_ms - LEAD_MS)
    last_ms = None if until_ms is None or span.horizon_s is None else until_ms + round(span.horizon_ms) + 1
    lead = await _offset_at(reader, predictions, lead_ms, Range(low, end))
    return PartitionSpan(
        partition=number,
        first=first,
        predictions=Range(min(first, lead), end),
        audits=await _between(reader, audits, lead_ms, last_ms, there[audits]),
        feedback=await _between(reader, feedback, lead_ms, last_ms, there[feedback]),
    )


async def _wanted(reader: LogReader, tp: TopicPartition, span: Span, there: Range) -> Range:
    if span.offsets:
        first, end = span.offsets[tp.partition]
        return Range(max(there.first, first or 0), min(there.end, there.end if end is None else end))
    first = await _offset_at(reader, tp, span.since_ms, there)
    return Range(first, there.end if span.until_ms is None else await _offset_at(reader, tp, span.until_ms, there))


async def _between(
    reader: LogReader, tp: TopicPartition, since_ms: int | None, until_ms: int | None, there: Range
) -> Range:
    first = await _offset_at(reader, tp, since_ms, there)
    return Range(first, there.end if until_ms is None else max(first, await _offset_at(reader, tp, until_ms, there)))


async def _offset_at(reader: LogReader, tp: TopicPartition, at_ms: int | None, there: Range) -> int:
    """Return the first offset at or after a time; the first of all without a time, the end if all are older."""
    if at_ms is None:
        return there.first
    return min(there.end, (await reader.offsets_at([tp], at_ms)).get(tp, there.end))


async def _time_at(reader: LogReader, tp: TopicPartition, offset: int) -> int:
    """Return the timestamp of the first record at or after an offset, milliseconds since the epoch."""
    async with aclosing(reader.lists({tp: Range(offset, NO_END)}, max_records=1)) as lists:
        _, records = await anext(lists)
    timestamp: int = records[0].timestamp
    return timestamp
