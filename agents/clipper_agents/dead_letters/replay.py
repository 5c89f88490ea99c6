"""Sends dead letters to where they came from once more.

Rules of this file:
- A letter is noted as replayed before it is sent, and the note is taken back when the broker refuses it: whatever
  happens, it is not sent twice unless it is asked for.
- Key, value and headers are the original's, but for when a feedback was said first: it is said again now. A letter of
  which something was cut is not sent: that would be another record.
"""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from clipper_agents.dead_letters.reader import (
    REPLAYED_FROM,
    DeadLetterReader,
    Letter,
    NoSuchLetter,
    opened_letters,
)
from clipper_agents.dead_letters.replayed_marks import Replayed
from clipper_agents.kafka.clients import make_producer
from clipper_agents.kafka.topics import existing_topics
from clipper_topics.catalogue import LARGEST_RECORD_BYTES, Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.dead_letter import PREFIX
from clipper_topics.feedback import FORWARDED

BATCH_LETTERS = 500
BATCH_BYTES = 32 << 20


class ReplayOutcome(NamedTuple):
    """The result for one letter: where it was sent, or why it was not."""

    position: int
    sent_to: str | None
    reason: str = ""

    @property
    def text(self) -> str:
        """The result in words."""
        return f"sent to {self.sent_to}" if self.sent_to else f"not replayed, {self.reason}"


def refusal(letter: Letter, catalogue: Catalogue, topics: Mapping[str, int]) -> str | None:
    """Why the letter cannot be replayed, given the partition counts of the topics; None when it can."""
    said = letter.said
    if said is None:
        return "it is no dead letter: its headers do not say where it came from"
    if said.cut is not None:
        return f"it was cut when it was kept ({said.cut}): send the record anew from its source"
    if letter.key is None and letter.value is None:
        return "it has neither key nor value: there is nothing to use"
    read = said.topic in (catalogue.queries, catalogue.feedback, catalogue.outputs)
    if not read and not said.topic.startswith(f"{catalogue.prefix}.requests."):
        return f"topic {said.topic!r} is none that this deployment ({catalogue.prefix}) reads"
    if not 0 <= said.partition < topics.get(said.topic, 0):
        return f"there is no partition {said.partition} of topic {said.topic!r} any more"
    return None


def replayed_headers(letter: Letter) -> list[tuple[str, bytes | None]]:
    """The original's headers, and the position from which it was replayed."""
    left_out = {REPLAYED_FROM, FORWARDED}
    kept = [(name, value) for name, value in letter.headers if not name.startswith(PREFIX) and name not in left_out]
    return [*kept, (REPLAYED_FROM, str(letter.position).encode())]


class Replayer:
    """Replays letters, a list at a time; with `again` those too that were replayed before."""

    def __init__(
        self,
        producer: AIOKafkaProducer,
        replayed: Replayed,
        catalogue: Catalogue,
        topics: Mapping[str, int],
        *,
        again: bool = False,
    ) -> None:
        self._producer, self._replayed = producer, replayed
        self._catalogue, self._topics, self._again = catalogue, topics, again

    async def replay(self, letters: Sequence[Letter]) -> list[ReplayOutcome]:
        """Send the letters, except where there is a reason not to; what became of each, in their order.

        Raises:
            KafkaUnreachable: the broker went away.
        """
        rules = self._replayed, self._catalogue, self._topics
        reasons = {letter.position: await _why_not(letter, *rules, again=self._again) for letter in letters}
        chosen = [letter for letter in letters if reasons[letter.position] is None]
        await self._replayed.note([letter.position for letter in chosen])
        sent = dict(zip([letter.position for letter in chosen], await self._send(chosen), strict=True))
        await self._replayed.note([one.position for one in sent.values() if one.sent_to is None], replayed=False)
        return [
            sent.get(position) or ReplayOutcome(position, None, reason or "") for position, reason in reasons.items()
        ]

    async def _send(self, letters: Sequence[Letter]) -> list[ReplayOutcome]:
        under_way = [await self._begin(letter) for letter in letters]
        return [await self._sent(letter, future) for letter, future in zip(letters, under_way, strict=True)]

    async def _begin(self, letter: Letter) -> "asyncio.Future[Any] | KafkaError":
        said = letter.said
        if said is None:  # refused before
            raise NoSuchLetter(f"position {letter.position} holds no dead letter")
        try:
            future: asyncio.Future[Any] = await self._producer.send(
                said.topic, letter.value, letter.key, said.partition, headers=replayed_headers(letter)
            )
        except KafkaError as error:
            return error
        return future

    async def _sent(self, letter: Letter, under_way: "asyncio.Future[Any] | KafkaError") -> ReplayOutcome:
        try:
            if isinstance(under_way, KafkaError):
                raise under_way
            stored = await under_way
        except KafkaError as error:
            return ReplayOutcome(letter.position, None, f"the broker does not take it: {error!r}")
        return ReplayOutcome(letter.position, f"{stored.topic}[{stored.partition}] at offset {stored.offset}")


async def _why_not(
    letter: Letter, replayed: Replayed, catalogue: Catalogue, topics: Mapping[str, int], *, again: bool
) -> str | None:
    """Why the letter is left alone; None when it is to be sent."""
    if not again and await replayed.of(letter.position):
        return "it was replayed before: --again sends it once more"
    return refusal(letter, catalogue, topics)


async def check_letters(
    kafka: KafkaConnection, catalogue: Catalogue, positions: Iterable[int], *, again: bool = False
) -> list[tuple[Letter, str | None]]:
    """Return the letters at these positions without values, each with the reason why it would not be sent.

    Raises:
        NoSuchLetter: one of them is not there.
        KafkaUnreachable: no broker answers.
        TopicMismatch: there is no topic of dead letters.
    """
    rules = Replayed(kafka, catalogue), catalogue, await existing_topics(kafka, catalogue.prefix)
    async with opened_letters(kafka, catalogue) as letters:
        return [
            (dataclasses.replace(letter, value=None), await _why_not(letter, *rules, again=again))
            async for letter in _letters_at(letters, positions)
        ]


async def replay_letters(
    kafka: KafkaConnection, catalogue: Catalogue, positions: Iterable[int], *, again: bool = False
) -> AsyncIterator[list[ReplayOutcome]]:
    """Send the letters at these positions once more, and yield what became of them; errors as of `check_letters`."""
    topics = await existing_topics(kafka, catalogue.prefix)
    async with opened_letters(kafka, catalogue) as letters, replaying_producer(kafka) as producer:
        replayer = Replayer(producer, Replayed(kafka, catalogue), catalogue, topics, again=again)
        async for batch in in_batches(_letters_at(letters, positions)):
            yield await replayer.replay(batch)


async def _letters_at(letters: DeadLetterReader, positions: Iterable[int]) -> AsyncIterator[Letter]:
    for position in positions:
        yield await letters.at(position)


async def in_batches(letters: AsyncIterator[Letter]) -> AsyncIterator[list[Letter]]:
    """The letters in lists that memory has room for."""
    batch: list[Letter] = []
    size_bytes = 0
    async for letter in letters:
        batch.append(letter)
        size_bytes += len(letter.value or b"") + len(letter.key or b"")
        if len(batch) >= BATCH_LETTERS or size_bytes >= BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def replaying_producer(kafka: KafkaConnection) -> AIOKafkaProducer:
    """Open a producer for `Replayer`."""
    return make_producer(kafka, idempotent=False, max_request_size=LARGEST_RECORD_BYTES)
