"""What became of one feedback, read from the logs: applied, repeated, an orphan, or refused.

Rules of this file:
- A step's dead letters are stored before its position, which is committed with its rows: so what is behind the
  position and neither in a row nor among the dead letters was counted with others, or repeats an earlier feedback.
- Of several feedbacks about a query the first that is not refused counts.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from aiokafka import TopicPartition

from clipper_agents.dead_letters.reader import letter_of
from clipper_agents.feedback.feedback_step import OrphanFeedback, decode_feedback
from clipper_agents.kafka.reader import FOLLOW_WAIT_S, LogReader, Record, open_reader
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import UndecodableRecord
from clipper_topics.connection import KafkaConnection
from clipper_topics.feedback import repeated_between
from clipper_topics.selection_rows import POSITION, read_row

Outcome: TypeAlias = Literal["applied", "repeated", "orphan", "refused"]


class FeedbackOutcome(NamedTuple):
    """What became of a feedback, and why where it did not count."""

    outcome: Outcome
    reason: str = ""


@dataclass(slots=True)
class FeedbackTrace:
    """What the changelog says about the feedback at an offset of a partition.

    Attributes:
        position: Feedback up to this offset is done with, -1 for none.
        is_learned: Whether a row ends at the feedback.
    """

    partition: int
    offset: int
    position: int = -1
    is_learned: bool = False

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """Take a record of the changelog in."""
        place, row = read_row(key, value) or (None, None)
        if place is None or row is None or place.partition != self.partition:
            return
        if (place.application, place.context) == POSITION:
            self.position = max(self.position, row.offset)
        elif place.application and row.offset == self.offset:
            self.is_learned = True


async def follow_feedback(
    connection: KafkaConnection,
    catalogue: Catalogue,
    query_id: str,
    send: Callable[[], Awaitable[tuple[int, int]]],
    horizon_s: float,
) -> FeedbackOutcome:
    """Send a feedback, and wait until a router is done with it.

    Args:
        connection: Where the deployment is.
        catalogue: Its topics.
        query_id: The query that the feedback is about.
        send: Sends it, and returns its partition and offset.
        horizon_s: So long after its query a feedback counts, in seconds.

    Raises:
        KafkaUnreachable: no broker answers.
        AccessRefused: this user may not read the changelog, the feedback or the dead letters.
    """
    async with open_reader(connection, isolation_level="read_committed", fetch_wait_s=FOLLOW_WAIT_S) as reader:
        letters = TopicPartition(catalogue.dead_letters, 0)
        ends = await reader.end_offsets([letters, *await reader.partitions_of(catalogue.selection_changelog)])
        before = ends.pop(letters)
        await reader.follow(ends)
        trace = FeedbackTrace(*await send())
        while trace.position < trace.offset:
            for records in (await reader.fetch(wait_s=FOLLOW_WAIT_S)).values():
                for record in records:
                    trace.take(record.key, record.value)
        if trace.is_learned:
            return FeedbackOutcome("applied")
        feedback = TopicPartition(catalogue.feedback, trace.partition)
        found = (await _refused(reader, letters, feedback, before)).get(trace.offset)
        if found is not None:
            return found
        since_ms = int(repeated_between(time.time() * 1000, horizon_s * 1000)[0])
        earlier = await _about(reader, feedback, query_id, trace.offset, since_ms)
        if earlier and earlier - (await _refused(reader, letters, feedback, since_ms=since_ms)).keys():
            return FeedbackOutcome("repeated", f"an earlier feedback about query {query_id!r} counts")
        return FeedbackOutcome("applied")


def refused_feedback(record: Record, feedback: TopicPartition) -> tuple[int, FeedbackOutcome] | None:
    """Return the offset of the feedback that a dead letter is about, and why; None for one of another partition."""
    said = letter_of(record).said
    if said is None or (said.topic, said.partition) != feedback:
        return None
    is_orphan = said.exception.endswith(f".{OrphanFeedback.__name__}")
    return said.offset, FeedbackOutcome("orphan" if is_orphan else "refused", said.message)


async def _refused(
    reader: LogReader, letters: TopicPartition, feedback: TopicPartition, first: int = 0, *, since_ms: int = 0
) -> dict[int, FeedbackOutcome]:
    """Return the feedback of a partition that is among the dead letters, by its offset."""
    found: dict[int, FeedbackOutcome] = {}

    def take(_: TopicPartition, records: list[Record]) -> None:
        found.update(one for record in records if (one := refused_feedback(record, feedback)) is not None)

    await reader.read({letters: first}, take, since_ms={letters: since_ms})
    return found


async def _about(reader: LogReader, feedback: TopicPartition, query_id: str, before: int, since_ms: int) -> set[int]:
    """Return the offsets of earlier feedback about a query."""
    found: set[int] = set()

    def take(_: TopicPartition, records: list[Record]) -> None:
        for record in records:
            try:
                said = decode_feedback(record)
            except UndecodableRecord:
                continue
            if said.query_id == query_id:
                found.add(record.offset)

    await reader.read({feedback: None}, take, {feedback: before}, {feedback: since_ms})
    return found
