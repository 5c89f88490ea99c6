"""Sends dead letters to where they came from once more.

Key, value and headers are the original's, but for when a feedback was said first: it is said again now. A letter of
which something was cut is not sent: that would be another record.
"""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from clipper_agents.dead_letters.reader import REPLAYED_FROM, Letter, opened_letters
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


async def check_letters(
    kafka: KafkaConnection, catalogue: Catalogue, positions: Iterable[int]
) -> list[tuple[Letter, str | None]]:
    """Return the letters at these positions without values, each with the reason why it would not be sent."""
    topics = await existing_topics(kafka, catalogue.prefix)
    async with opened_letters(kafka, catalogue) as letters:
        found = [await letters.at(position) for position in positions]
    return [(dataclasses.replace(letter, value=None), refusal(letter, catalogue, topics)) for letter in found]


async def replay_letters(
    kafka: KafkaConnection, catalogue: Catalogue, positions: Iterable[int]
) -> AsyncIterator[list[ReplayOutcome]]:
    """Send the letters at these positions once more, and yield what became of them; errors as of `check_letters`."""
    topics = await existing_topics(kafka, catalogue.prefix)

    async def replay(batch: list[Letter]) -> list[ReplayOutcome]:
        begun = [await _begin(producer, letter, refusal(letter, catalogue, topics)) for letter in batch]
        return await asyncio.gather(*begun)

    async with opened_letters(kafka, catalogue) as letters, _producer(kafka) as producer:
        batch: list[Letter] = []
        for position in positions:
            batch.append(await letters.at(position))
            if len(batch) >= BATCH_LETTERS or sum(len(one.value or b"") for one in batch) >= BATCH_BYTES:
                yield await replay(batch)
                batch = []
        if batch:
            yield await replay(batch)


def _producer(kafka: KafkaConnection) -> AIOKafkaProducer:
    return make_producer(kafka, idempotent=False, max_request_size=LARGEST_RECORD_BYTES)


async def _begin(producer: AIOKafkaProducer, letter: Letter, reason: str | None) -> "asyncio.Task[ReplayOutcome]":
    """Hand the letter over behind those before it, unless there is a reason not to."""
    stored: asyncio.Future[Any] | None = None
    if letter.said is not None and reason is None:
        left_out = {REPLAYED_FROM, FORWARDED}
        headers = [pair for pair in letter.headers if not pair[0].startswith(PREFIX) and pair[0] not in left_out]
        headers.append((REPLAYED_FROM, str(letter.position).encode()))
        to = letter.said.topic, letter.value, letter.key, letter.said.partition
        try:
            stored = await producer.send(*to, headers=headers)
        except KafkaError as error:
            reason = f"the broker does not take it: {error!r}"
    return asyncio.create_task(_outcome(letter.position, stored, reason or ""))


async def _outcome(position: int, stored: "asyncio.Future[Any] | None", reason: str) -> ReplayOutcome:
    if stored is None:
        return ReplayOutcome(position, None, reason)
    try:
        record = await stored
    except KafkaError as error:
        return ReplayOutcome(position, None, f"the broker does not take it: {error!r}")
    return ReplayOutcome(position, f"{record.topic}[{record.partition}] at offset {record.offset}")
