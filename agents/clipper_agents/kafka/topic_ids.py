"""Ids of topics, which tell a topic from a later one of the same name (KIP-516).

Rules of this file:
- An offset counts only for the topic whose id stands beside it.
- A process refers to the topics that it saw first. It ends when one of them is another one.
- A broker that does not know a topic, for it is being made or was deleted, is asked again.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from functools import partial
from hashlib import md5
from io import BytesIO
from typing import Any, NamedTuple

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import TopicAuthorizationFailedError
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from clipper_agents.kafka.clients import administration
from clipper_agents.kafka.errors import StaleReferences, TopicMadeAnew, TopicMismatch, wrong_partitions
from clipper_agents.kafka.reader import Record, read_topic
from clipper_agents.kafka.retry import POLL_S, retry
from clipper_agents.kafka.topics import delete_topics, ensure_topics
from clipper_topics.catalogue import Catalogue, TopicCreation
from clipper_topics.connection import KafkaConnection
from clipper_topics.selection_rows import read_row

logger = logging.getLogger(__name__)

CREATE = "run `clipper-stream topics create`"
"""What brings topics that are missing."""
_TEXT, _NUMBERS, _TAGS = CompactString("utf-8"), CompactArray(Int32), ("tags", TaggedFields)


class _Uuid(AbstractType[bytes]):  # type: ignore[misc]
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


_ANY_ID = bytes(16)
_BROKER = ("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), _TAGS
_PARTITION = (
    ("error_code", Int16),
    ("partition", Int32),
    ("leader", Int32),
    ("leader_epoch", Int32),
    ("replicas", _NUMBERS),
    ("isr", _NUMBERS),
    ("offline_replicas", _NUMBERS),
    _TAGS,
)
_TOPIC = (
    ("error_code", Int16),
    ("name", _TEXT),
    ("topic_id", _Uuid),
    ("is_internal", Boolean),
    ("partitions", CompactArray(*_PARTITION)),
    ("authorized_operations", Int32),
    _TAGS,
)


class _TopicIdsResponse(Response):  # type: ignore[misc]
    API_KEY = 3  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    API_VERSION = 12  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", CompactArray(*_BROKER)),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        ("topics", CompactArray(*_TOPIC)),
        _TAGS,
    )


class _TopicIdsStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _TopicIdsResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", _TEXT), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class TopicIdsRequest(Request[MetadataRequest_v5 | _TopicIdsStruct]):  # type: ignore[misc]
    """Metadata with the ids of topics: version 12, where the broker has it; aiokafka's own goes to 5. Creates none."""

    API_KEY = 3

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics = list(topics)

    def build(self, request_struct_class: Any) -> Any:
        creates, tells_rights = False, False
        if request_struct_class is MetadataRequest_v5:
            return request_struct_class(self._topics, creates)
        return request_struct_class([(_ANY_ID, name, {}) for name in self._topics], creates, tells_rights, {})


class FoundTopic(NamedTuple):
    """A topic as a broker knows it."""

    topic_id: bytes
    partitions: int


def topics_of(response: Any) -> dict[str, FoundTopic]:
    """Return the topics that there are, by name; raise where this user may not see one of them."""
    found: dict[str, FoundTopic] = {}
    for code, name, *rest in response.topics:
        if code == TopicAuthorizationFailedError.errno:
            raise TopicAuthorizationFailedError(name)
        if code == 0:
            topic_id, _, partitions, *_ = rest if isinstance(rest[0], bytes) else (id_by_name(name), *rest)
            found[name] = FoundTopic(topic_id, len(partitions))
    return found


def id_by_name(name: str) -> bytes:
    """What stands for a topic at a broker that has no ids: a later topic of the name looks like the same one."""
    return md5(name.encode(), usedforsecurity=False).digest()


async def find_topics(client: AIOKafkaClient, topics: Iterable[str]) -> dict[str, FoundTopic]:
    """Return those of the topics that there are, by name, as any broker knows them; errors as of `topics_of`."""
    return topics_of(await client.send(client.get_random_node(), TopicIdsRequest(topics)))


def stale_references(topics: Iterable[str]) -> StaleReferences:
    """Return the error about topics that were deleted while answers and rows refer to them."""
    return StaleReferences(
        f"topic {', '.join(topics)} was deleted and created again, but answers and what was learned refer to the "
        "earlier one: run `clipper-stream topics renew`, which makes the logs anew that are still the earlier ones"
    )


class TopicIds:
    """The topics that a process refers to; those named in `partitions` must have so many.

    Attributes:
        known: Their ids by name, from when they were seen first.
        missing: Names of those that `learn` waits for, because no broker has them.
    """

    def __init__(self, partitions: Mapping[str, int] | None = None) -> None:
        self._partitions = partitions or {}
        self.known: dict[str, bytes] = {}
        self.missing: frozenset[str] = frozenset()

    async def learn(self, client: AIOKafkaClient, topics: Iterable[str]) -> None:
        """Refer to these topics too, and wait until they are there; errors as of `topics_of` and `note`."""
        wanted = frozenset(topics)
        while missing := wanted - self.known.keys():
            self.note(await retry("ids of topics", partial(find_topics, client, missing)))
            waits, self.missing = bool(self.missing), missing - self.known.keys()
            if self.missing:
                if not waits:
                    logger.warning("waiting for topics=%s: %s", ",".join(sorted(self.missing)), CREATE)
                await asyncio.sleep(POLL_S)

    def note(self, found: Mapping[str, FoundTopic]) -> None:
        """Take in topics as a broker knows them now.

        Raises:
            TopicMadeAnew: a topic is another one than before.
            TopicMismatch: a topic has another number of partitions than it must have.
        """
        for name, (topic_id, partitions) in found.items():
            if (wanted := self._partitions.get(name, partitions)) != partitions:
                raise TopicMismatch(wrong_partitions(name, partitions, wanted))
            if self.known.setdefault(name, topic_id) != topic_id:
                raise TopicMadeAnew(f"topic {name} was deleted and created again")


# --- topics that were made anew ---------------------------------------------------------------------------------------
def replaced_logs(catalogue: Catalogue, noted: Iterable[tuple[bytes, ...]], now: Mapping[str, bytes]) -> list[str]:
    """Return the logs that are other ones than rows and answers refer to.

    `noted` are the ids of all logs beside the position of each partition, `now` those of the topics that there are.
    """
    by_log = zip(catalogue.logs, zip(*noted, strict=True), strict=False)
    return [name for name, ids in by_log if {*ids} != {now.get(name)}]


async def read_replaced_logs(connection: KafkaConnection, catalogue: Catalogue) -> list[str]:
    """Return the logs that were deleted since answers and rows refer to them; errors as of `read_topic`."""
    noted: dict[int, tuple[bytes, ...]] = {}

    def take(records: list[Record]) -> None:
        for record in records:
            key, row = read_row(record.key, record.value) or (None, None)
            if key is not None and row is not None and row.topic_ids:
                noted[key.partition] = row.topic_ids

    await read_topic(connection, catalogue, catalogue.selection_changelog, take)
    async with administration(connection) as admin:
        now = {name: found.topic_id for name, found in (await find_topics(admin._client, catalogue.logs)).items()}
    return replaced_logs(catalogue, noted.values(), now)


async def renew_logs(
    connection: KafkaConnection, catalogue: Catalogue, replaced: Iterable[str], creation: TopicCreation
) -> list[str]:
    """Make all logs anew but those that were `replaced`, and what was learned from them; return their names.

    What was made anew already is answered, or learned, once the others are new. The changelog, which says what refers
    to which topic, goes last: a renewal that was broken off can be repeated.
    """
    earlier = [name for name in catalogue.logs if name not in set(replaced)]
    learned = [catalogue.selection, catalogue.selection_changelog]
    for names in (earlier, learned):
        await delete_topics(connection, names)
        await ensure_topics(connection, catalogue, creation=creation)
    return [*earlier, *learned]
