"""Which part of the logs: from a time to another, and the offsets that this comes to in each topic.

Rules of this file:
- A decision belongs to a span by the record of its prediction. What is about it may stand outside.
- A prediction before the span is read for its id alone, for a while back: one inside may repeat it.
- Feedback is read from a while before the span, and until the horizon behind its end, or to the end of the log.
"""

from dataclasses import dataclass

from aiokafka import TopicPartition

from clipper_agents.kafka.reader import LogReader, Range
from clipper_stream.errors import SetupError
from clipper_topics.catalogue import Catalogue

LEAD_MS = 300_000
"""Before the span: a router that starts again answers what it finds unfinished within minutes."""


class EmptySpan(SetupError):
    """The span ends before it begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of the predictions topic.

    Attributes:
        since_ms: Predictions of this time and later, milliseconds since the epoch; None: from the oldest on.
        until_ms: Predictions before this time; None: up to the end of the log now.
        horizon_s: How long after its prediction a feedback still counts, in seconds; None: as long as there is a log.

    >>> Span(since_ms=1_000, until_ms=2_000).horizon_ms
    inf

    Raises:
        EmptySpan: the span ends before it begins.
    """

    since_ms: int | None = None
    until_ms: int | None = None
    horizon_s: float | None = None

    def __post_init__(self) -> None:
        if self.since_ms is not None and self.until_ms is not None and self.since_ms >= self.until_ms:
            raise EmptySpan(f"the span begins at {self.since_ms} ms and ends at {self.until_ms} ms: give a later end")

    @property
    def horizon_ms(self) -> float:
        return float("inf") if self.horizon_s is None else self.horizon_s * 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionSpan:
    """Ranges of offsets to read in one partition of each topic; predictions before `first` only for their ids."""

    partition: int
    first: int
    predictions: Range
    audits: Range
    feedback: Range

    @property
    def records(self) -> int:
        return sum(end - begin for begin, end in (self.predictions, self.audits, self.feedback))


async def partition_spans(reader: LogReader, catalogue: Catalogue, span: Span) -> list[PartitionSpan]:
    """Return the offsets of each partition with predictions in the span; errors as of `LogReader.lists`."""
    found = [await _partition_span(reader, catalogue, span, number) for number in range(catalogue.partitions)]
    return [one for one in found if one.first < one.predictions.end]


async def _partition_span(reader: LogReader, catalogue: Catalogue, span: Span, number: int) -> PartitionSpan:
    predictions, audits, feedback = tps = [
        TopicPartition(topic, number) for topic in (catalogue.predictions, catalogue.audits, catalogue.feedback)
    ]
    there = await reader.ranges(tps)
    first, end = await range_between(reader, predictions, span.since_ms, span.until_ms, there[predictions])
    since_ms, until_ms = span.since_ms, span.until_ms
    lead_ms = None if since_ms is None else max(0, since_ms - LEAD_MS)
    last_ms = None if until_ms is None or span.horizon_s is None else until_ms + round(span.horizon_ms) + 1
    lead = await _offset_at(reader, predictions, lead_ms, Range(there[predictions].first, end))
    return PartitionSpan(
        partition=number,
        first=first,
        predictions=Range(min(first, lead), end),
        audits=await range_between(reader, audits, lead_ms, last_ms, there[audits]),
        feedback=await range_between(reader, feedback, lead_ms, last_ms, there[feedback]),
    )


async def range_between(
    reader: LogReader, tp: TopicPartition, since_ms: int | None, until_ms: int | None, there: Range
) -> Range:
    """Return the offsets of a partition's records from one time to another, milliseconds since the epoch.

    None stands for the oldest record and for the end of what is `there`.
    """
    first = await _offset_at(reader, tp, since_ms, there)
    return Range(first, there.end if until_ms is None else max(first, await _offset_at(reader, tp, until_ms, there)))


async def _offset_at(reader: LogReader, tp: TopicPartition, at_ms: int | None, there: Range) -> int:
    if at_ms is None:
        return there.first
    return min(there.end, (await reader.offsets_at([tp], at_ms)).get(tp, there.end))
