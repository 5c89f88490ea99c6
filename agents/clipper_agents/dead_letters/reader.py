"""Reads the dead letters of a deployment, oldest first, and picks some of them."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from aiokafka import TopicPartition

from clipper_agents.kafka.errors import checked_partitions
from clipper_agents.kafka.reader import LogReader, Range, Record, open_reader
from clipper_agents.kafka.topics import existing_topics
from clipper_stream.errors import ClipperError
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.dead_letter import DeadLetter, NotADeadLetter, read_dead_letter

REPLAYED_FROM = "clipper-replayed-from"
"""Header of a record that was replayed: the position of its dead letter."""


class NoSuchLetter(ClipperError):
    """No dead letter has this position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One record of the dead letters' topic: the original's key, value and headers."""

    position: int
    at_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    said: DeadLetter | None

    @property
    def replayed_from(self) -> str | None:
        """Position of the letter of which the original record was a replay."""
        found = [value for name, value in self.headers if name == REPLAYED_FROM]
        return (found[-1] or b"").decode("utf-8", "replace") if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which letters are meant: original topic, since when, a part of the error in any case, and the first position."""

    topic: str | None = None
    since_ms: int | None = None
    error: str | None = None
    first: int = 0

    def admits(self, letter: Letter) -> bool:
        said = letter.said
        if self.topic is not None and (said is None or said.topic != self.topic):
            return False
        if letter.position < self.first or letter.at_ms < (self.since_ms or 0):
            return False
        words = "" if said is None else f"{said.exception} {said.message}"
        return self.error is None or self.error.lower() in words.lower()


ALL = Filter()


class DeadLetterReader:
    """Reads the dead letters' topic, from `opened_letters`; it has letters at `positions`."""

    def __init__(self, reader: LogReader, tp: TopicPartition, there: Range) -> None:
        self._reader, self._tp, self.positions = reader, tp, there

    async def all(self, wanted: Filter = ALL, *, within: Range | None = None) -> AsyncIterator[Letter]:
        """The letters that are there now, oldest first; with `within` those at these positions alone."""
        async with aclosing(self._reader.lists({self._tp: within or self.positions})) as lists:
            async for _, records in lists:
                for letter in map(letter_of, records):
                    if wanted.admits(letter):
                        yield letter

    async def at(self, position: int) -> Letter:
        first, end = self.positions
        if not first <= position < end:
            known = f"positions go from {first} to {end - 1}" if first < end else "there is none"
            raise NoSuchLetter(
                f"no dead letter at position {position}, {known}: see `clipper-stream dead-letters list`"
            )
        async with aclosing(self._reader.lists({self._tp: Range(position, position + 1)}, max_records=1)) as lists:
            async for _, records in lists:
                return letter_of(records[0])
        raise NoSuchLetter(f"the dead letter at position {position} is there no more: its time was over")


@asynccontextmanager
async def opened_letters(connection: KafkaConnection, catalogue: Catalogue) -> AsyncIterator[DeadLetterReader]:
    """The dead letters for the time of the block."""
    found = await existing_topics(connection, catalogue.prefix)
    checked_partitions(catalogue.dead_letters, found.get(catalogue.dead_letters))
    tp = TopicPartition(catalogue.dead_letters, 0)
    async with open_reader(connection) as reader:
        yield DeadLetterReader(reader, tp, (await reader.ranges([tp]))[tp])


def letter_of(record: Record) -> Letter:
    """Return a record of the topic as a letter; anybody may have written it."""
    try:
        said = read_dead_letter(record.headers)
    except NotADeadLetter:
        said = None
    return Letter(
        position=record.offset,
        at_ms=record.timestamp,
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
        said=said,
    )
