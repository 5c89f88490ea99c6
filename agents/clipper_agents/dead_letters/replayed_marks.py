"""Which dead letters were replayed: a bit each, kept in the metadata of committed offsets.

Rules of this file:
- A group `<prefix>.replayed.<number>` stands for `LETTERS_A_GROUP` positions. Nobody consumes in it; what it committed
  on the dead letters' topic is where its positions begin, with the bits as metadata.
- Kafka forgets a group's offsets a week after its last commit, by default. Letters live a week, so no note is forgotten
  before its letter.
"""

import base64
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata

from clipper_agents.kafka.clients import administration, make_consumer, started
from clipper_agents.kafka.retry import TIMEOUT_S, retry
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

LETTERS_A_GROUP = 16_384
"""As many bits are 2732 characters of base64; a broker takes 4096 (`offset.metadata.max.bytes`)."""


def encode_marks(marks: Iterable[int]) -> str:
    """Encode numbers below `LETTERS_A_GROUP` as text.

    >>> decode_marks(encode_marks({0, 9}))
    {0, 9}
    """
    bits = 0
    for mark in marks:
        bits |= 1 << mark
    return base64.b64encode(bits.to_bytes((bits.bit_length() + 7) // 8, "little")).decode()


def decode_marks(text: str) -> set[int]:
    """Decode the text of `encode_marks`."""
    bits = int.from_bytes(base64.b64decode(text), "little")
    return {mark for mark in range(bits.bit_length()) if bits >> mark & 1}


class Replayed:
    """Notes of what was replayed; one replay at a time, lest one overwrites what the other has noted."""

    def __init__(self, connection: KafkaConnection, catalogue: Catalogue) -> None:
        self._connection, self._catalogue = connection, catalogue
        self._tp = TopicPartition(catalogue.dead_letters, 0)
        self._known: dict[int, set[int]] = {}

    async def of(self, position: int) -> bool:
        """Whether the letter at this position was replayed."""
        number, mark = divmod(position, LETTERS_A_GROUP)
        return mark in await self._marks(number)

    async def note(self, positions: Iterable[int], *, replayed: bool = True) -> None:
        """Note that these were replayed, or were not after all.

        Raises:
            KafkaUnreachable: no broker answers.
        """
        changed = {position // LETTERS_A_GROUP for position in positions}
        for number in changed:
            marks = await self._marks(number)
            own = {position % LETTERS_A_GROUP for position in positions if position // LETTERS_A_GROUP == number}
            marks = marks | own if replayed else marks - own
            async with self._member(number) as consumer:
                begin = number * LETTERS_A_GROUP
                await consumer.commit({self._tp: OffsetAndMetadata(begin, encode_marks(marks))})
            self._known[number] = marks

    async def _marks(self, number: int) -> set[int]:
        if number not in self._known:
            async with administration(self._connection) as admin:
                found = (await self._offsets(admin, self._group(number))).get(self._tp)
            self._known[number] = decode_marks(found.metadata) if found is not None and found.metadata else set()
        return self._known[number]

    async def _offsets(self, admin: AIOKafkaAdminClient, group: str) -> Mapping[TopicPartition, OffsetAndMetadata]:
        """What the group has committed; a cluster that never had a group needs a moment to appoint a coordinator."""
        return await retry(
            "committed offsets",
            lambda: admin.list_consumer_group_offsets(group, partitions=[self._tp]),
            TIMEOUT_S,
        )

    @asynccontextmanager
    async def _member(self, number: int) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = make_consumer(self._connection, isolation_level="read_committed", group=self._group(number))
        async with started(self._connection, consumer):
            consumer.assign([self._tp])
            yield consumer

    def _group(self, number: int) -> str:
        return f"{self._catalogue.prefix}.replayed.{number}"
